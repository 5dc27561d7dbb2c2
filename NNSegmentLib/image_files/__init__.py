"""What files of images need beside SimpleITK: whole files, honest headers, paths and formats that it does not read."""
