"""Images of every kind that people have, written by Pillow: `python make.py` here. Four quadrants of one colour each.

Prints what Pillow decodes in the middle of each quadrant (`convert("RGB")` of the first frame).
"""
import glob

from PIL import Image

COLOURS = [(200, 30, 40), (20, 180, 60), (30, 60, 220), (240, 240, 30)]


def quadrants(mode, colours, side=32):
    image = Image.new(mode, (side, side))
    for i, colour in enumerate(colours):
        image.paste(colour, (i % 2 * side // 2, i // 2 * side // 2, (i % 2 + 1) * side // 2, (i // 2 + 1) * side // 2))
    return image


rgb = quadrants("RGB", COLOURS)
other = quadrants("RGB", COLOURS[::-1])
jpeg = {"quality": 95, "subsampling": 0}
rgb.save("plain.jpg", **jpeg)
rgb.save("progressive.jpg", progressive=True, **jpeg)
quadrants("CMYK", [(0, 200, 180, 30), (220, 0, 150, 60), (210, 160, 0, 20), (0, 0, 220, 10)]).save("cmyk.jpg", **jpeg)
rgb.convert("L").save("grey.jpg", quality=95)
rgb.save("lossy.webp", quality=95)
quadrants("RGBA", [c + (90,) for c in COLOURS]).save("alpha.webp", lossless=True, exact=True)
rgb.save("animated.webp", save_all=True, append_images=[other], lossless=True)
rgb.save("animated.png", save_all=True, append_images=[other])
rgb.quantize(4).save("palette.png")
quadrants("LA", [(v, 90) for v in (10, 90, 170, 250)]).save("grey-alpha.png")
quadrants("I;16", [v * 257 for v in (10, 90, 170, 250)]).save("grey-16.png")
rgb.save("plain.bmp")
for name in sorted(glob.glob("*.*")):
    if not name.endswith(".py"):
        image = Image.open(name)
        if image.mode == "I;16":
            print(name, "16 bits")
        else:
            image = image.convert("RGB")
            print(name, [image.getpixel((8 + i % 2 * 16, 8 + i // 2 * 16)) for i in range(4)])
