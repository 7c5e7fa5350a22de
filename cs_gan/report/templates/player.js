for (const player of document.querySelectorAll(".player")) {
  const frames = [...player.querySelectorAll(".frame")], last = frames.length - 1;
  const [button, slider, label] = ["button", "input", "output"].map((name) => player.querySelector(name));
  let timer = 0;
  const show = (i) => {
    frames.forEach((frame, j) => frame.classList.toggle("shown", i === j));
    slider.value = i;
    slider.setAttribute("aria-valuetext", frames[i].alt);
    label.textContent = frames[i].alt;
  };
  const pause = () => { clearInterval(timer); timer = 0; button.textContent = "Play"; };
  const advance = () => (+slider.value === last ? pause() : show(+slider.value + 1));
  slider.oninput = () => { pause(); show(+slider.value); };
  button.onclick = () => {
    if (timer) return pause();
    if (+slider.value === last) show(0);
    button.textContent = "Pause";
    timer = setInterval(advance, 600);
  };
  player.querySelector(".controls").hidden = false;
}
