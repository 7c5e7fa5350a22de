"""Weights are fetched on first use, from an HTTP server in a thread."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

from cs_gan.errors import MetricError
from cs_gan.metrics import dinov2, inception, load_extractor
from cs_gan.metrics.fetch import FetchError, fetch
from tests.processes import Forked

CONTENT = bytes(range(256)) * 5000  # five reads
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Answers each request with ``content``, of which it claims ``length`` bytes, once ``open`` is set."""

    def __init__(self) -> None:
        self.content, self.length, self.status, self.requests = CONTENT, len(CONTENT), 200, 0
        self.open = threading.Event()
        self.open.set()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests += 1
                server.open.wait(30)
                self.send_response(server.status)
                self.send_header("Content-Length", str(server.length))
                self.end_headers()
                self.wfile.write(server.content)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/weights.pth"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.delenv("CS_GAN_OFFLINE")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Server()
    threading.Thread(target=found.http.serve_forever, daemon=True).start()
    yield found
    found.open.set()
    found.http.shutdown()
    found.http.server_close()


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_file_is_fetched_once_and_then_read(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "hub" / "weights.pth"
    for _ in range(2):
        assert fetch(server.url, path, SHA256).read_bytes() == CONTENT
    assert server.requests == 1
    assert capsys.readouterr().err == f"Fetching {server.url} to {path}.\n"
    assert visible(path.parent) == ["weights.pth"]


def test_a_wrong_hash_is_refused_and_nothing_is_kept(server: Server, tmp_path: Path) -> None:
    server.content = b"<html>login</html>".ljust(len(CONTENT))
    with pytest.raises(FetchError, match=f"expected {SHA256}"):
        fetch(server.url, tmp_path / "weights.pth", SHA256)
    assert visible(tmp_path) == []
    server.content = CONTENT  # and the next try works
    assert fetch(server.url, tmp_path / "weights.pth", SHA256).exists()


def test_a_cut_connection_keeps_nothing_even_without_a_hash(server: Server, tmp_path: Path) -> None:
    server.content = CONTENT[:1000]
    with pytest.raises(FetchError, match=r"1,000 of 1,280,000 bytes|IncompleteRead"):
        fetch(server.url, tmp_path / "weights.pth", None)
    assert visible(tmp_path) == []


def test_a_refusal_and_a_missing_network_say_why(server: Server, tmp_path: Path) -> None:
    server.status = 404
    with pytest.raises(FetchError, match="HTTPError: HTTP Error 404"):
        fetch(server.url, tmp_path / "weights.pth", SHA256)
    with pytest.raises(FetchError, match="URLError"):
        fetch("http://127.0.0.1:9/weights.pth", tmp_path / "weights.pth", SHA256)
    assert visible(tmp_path) == []


def test_a_folder_that_cannot_be_written_says_so(server: Server, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file")
    with pytest.raises(FetchError, match=r"FileExistsError|NotADirectoryError"):
        fetch(server.url, tmp_path / "hub" / "weights.pth", SHA256)


def test_offline_nothing_is_asked(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CS_GAN_OFFLINE", "1")
    with pytest.raises(FetchError, match="CS_GAN_OFFLINE"):
        fetch(server.url, tmp_path / "hub" / "weights.pth", SHA256)
    assert server.requests == 0
    assert not (tmp_path / "hub").exists()


def test_threads_that_ask_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    server.open.clear()
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(fetch, server.url, tmp_path / "weights.pth", SHA256) for _ in range(4)]
        server.open.set()
        assert all(each.result().read_bytes() == CONTENT for each in asked)
    assert server.requests == 1


def fetch_and_tell(url: str, path: str) -> None:
    print(len(fetch(url, Path(path), SHA256).read_bytes()))


def test_processes_that_ask_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    server.open.clear()
    path = tmp_path / "weights.pth"
    outputs = [tmp_path / str(number) for number in range(3)]
    asked = Forked(run_online, [(server.url, str(path))] * 3, outputs)
    for _ in range(300):  # until two of them say that they wait
        if sum("Waiting" in output.read_text() for output in outputs if output.exists()) == 2:
            break
        threading.Event().wait(0.1)
    server.open.set()
    assert asked.wait() == [0, 0, 0]
    assert all(str(len(CONTENT)) in asked.said(rank) for rank in range(3))
    assert server.requests == 1


def run_online(url: str, path: str) -> None:
    import os

    os.environ.pop("CS_GAN_OFFLINE", None)
    os.environ["no_proxy"] = "127.0.0.1"
    fetch_and_tell(url, path)


def test_a_process_killed_while_it_fetches_blocks_nobody(server: Server, tmp_path: Path) -> None:
    server.open.clear()
    path = tmp_path / "weights.pth"
    first = Forked(run_online, [(server.url, str(path))], [tmp_path / "said"])
    for _ in range(300):
        if server.requests:
            break
        threading.Event().wait(0.1)
    first.processes[0].kill()
    assert first.wait() == [-9]
    server.open.set()
    assert fetch(server.url, path, SHA256).read_bytes() == CONTENT
    assert sorted(name for name in visible(tmp_path) if name != "said") == ["weights.pth"]


def test_inception_fetches_its_weights_and_says_what_to_do_if_it_cannot(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(inception, "URL_INCEPTION_V3", server.url)
    monkeypatch.setattr(inception, "SHA256", SHA256)
    server.status = 503
    with pytest.raises(MetricError) as caught:
        load_extractor("inception")
    for word in ("HTTP Error 503", server.url, str(tmp_path / "hub" / "checkpoints" / inception.FILE_NAME)):
        assert word in str(caught.value)
    server.status = 200
    assert inception.locate_weights().read_bytes() == CONTENT
    with pytest.raises(MetricError, match="doesn't exist"):  # a path that was typed is never written
        inception.locate_weights(tmp_path / "mine.pth")
    assert not (tmp_path / "mine.pth").exists()


def test_dinov2_fetches_its_weights_only_beside_its_code(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(dinov2, "URL", server.url)
    with pytest.raises(MetricError, match="git clone"):
        dinov2.locate_weights()
    assert server.requests == 0
    dinov2.code_folder().mkdir(parents=True)
    (dinov2.code_folder() / "hubconf.py").write_text("")
    assert dinov2.locate_weights().read_bytes() == CONTENT
