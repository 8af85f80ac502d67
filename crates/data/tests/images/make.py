"""Images of every kind that people have, written by Pillow: `python make.py` here. Four quadrants of one colour each.

Prints what Pillow decodes in the middle of each quadrant (`convert("RGB")` of the first frame), and of JPEGs of every sampling
and coding (in `jpeg`) the SHA-256 of all bytes.
"""
import glob
import hashlib
import os

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

os.makedirs("jpeg", exist_ok=True)


def waves(width, height):
    """Colours and edges that no two decoders round alike unless they compute alike."""
    pixel = lambda x, y, c: (x * (7 + 4 * c) + y * (13 - 3 * c) + (x * y * (c + 3)) % 97 + 90 * ((x // 5 + y // 7) % 2)) % 256
    image = Image.new("RGB", (width, height))
    image.putdata([tuple(pixel(x, y, c) for c in range(3)) for y in range(height) for x in range(width)])
    return image


for name, side, options in [
    ("420", (33, 47), {"subsampling": 2, "quality": 85}),
    ("420-progressive", (47, 33), {"subsampling": 2, "quality": 90, "progressive": True}),
    ("420-narrow", (3, 9), {"subsampling": 2, "quality": 90}),
    ("422", (31, 17), {"subsampling": 1, "quality": 75}),
    ("411", (37, 18), {"subsampling": "4:1:1", "quality": 80}),
    ("444-progressive", (17, 31), {"subsampling": 0, "quality": 100, "progressive": True}),
    ("restarts", (50, 40), {"restart_marker_blocks": 3, "quality": 70}),
    ("rgb", (20, 20), {"keep_rgb": True, "quality": 80}),
]:
    waves(*side).save(f"jpeg/{name}.jpg", **options)
waves(25, 19).convert("L").save("jpeg/grey-progressive.jpg", quality=60, progressive=True)
for name in sorted(glob.glob("jpeg/*.jpg")):
    print(os.path.basename(name), hashlib.sha256(Image.open(name).convert("RGB").tobytes()).hexdigest())
