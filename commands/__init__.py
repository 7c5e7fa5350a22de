"""What the scripts' commands do; scripts import it, and neither cs_gan nor models knows it."""
