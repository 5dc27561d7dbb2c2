# Slicer packs what is installed; here the installed folder is what tests look at.
