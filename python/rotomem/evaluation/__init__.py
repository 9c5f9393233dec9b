"""How good a matte is: measures of video object segmentation and alpha matting, and data sets to take them on."""
