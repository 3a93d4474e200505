"""Draws game items as shaded sprites: the pictures the demo model learns from.

An item is a list of parts. Each part is a flat shape with a role (main colour, handle, trim ...)
and a bevel; a distance transform turns the shapes into one height map, and the height map into
normals, so that every item is lit from the top left in the same way. Effects and backgrounds are
drawn around it. Everything is drawn at twice the size and reduced, which is the anti-aliasing.

    python draw.py --sheet build/demo/sheet.png          a sheet to look at, every kind and effect
    python draw.py --out build/demo/data --count 30000   the training pictures and their attributes
"""

import argparse
import json
import math
import multiprocessing
import os
import time

import cv2
import numpy as np

import captions

SIZE = 128  # the picture
BIG = 2 * SIZE  # what the item is drawn at
CENTRE = BIG / 2
UNIT = BIG * 0.40  # pixels per unit: items live in about [-1, 1]

COLOURS = {
    "red": (205, 28, 32), "orange": (243, 122, 16), "yellow": (246, 208, 28),
    "green": (38, 152, 48), "cyan": (48, 214, 222), "blue": (36, 76, 222),
    "purple": (128, 44, 190), "pink": (248, 128, 186), "brown": (122, 70, 34),
    "white": (238, 238, 240), "black": (34, 34, 40), "grey": (130, 133, 138),
}

# gloss, sharpness of the highlight, texture, strength of the texture, colour of the trim
MATERIALS = {
    None: (0.35, 18, "fine", 0.05, (118, 122, 134)),
    "iron": (0.22, 10, "blotch", 0.16, (84, 86, 94)),
    "steel": (0.85, 40, "brushed", 0.08, (176, 184, 196)),
    "gold": (0.75, 24, "fine", 0.04, (222, 172, 52)),
    "wood": (0.05, 6, "grain", 0.34, (116, 78, 42)),
    "stone": (0.04, 6, "rock", 0.42, (118, 116, 112)),
    "crystal": (0.95, 30, "facet", 0.40, (196, 232, 240)),
    "obsidian": (1.10, 60, "facet", 0.22, (46, 42, 54)),
    "bone": (0.15, 8, "rock", 0.16, (226, 216, 188)),
}

MAIN, HANDLE, TRIM, DARK, PAPER, ACCENT, GLASS = range(1, 8)

# ---------------------------------------------------------------------------------- textures


def _noise(rng, size, cells, aspect=1.0):
    """Smooth noise in [-1, 1] with about `cells` bumps across."""
    small = rng.standard_normal((max(2, int(cells * aspect)), cells)).astype(np.float32)
    out = cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC)
    return np.clip(out / 1.6, -1, 1)


def _facets(rng, size, count):
    """Flat patches of random brightness, as on cut glass."""
    points = rng.uniform(0, size, (count, 2)).astype(np.float32)
    ys, xs = np.mgrid[0:size, 0:size].astype(np.float32)
    nearest = np.full((size, size), 1e9, np.float32)
    out = np.zeros((size, size), np.float32)
    for x, y in points:
        away = np.abs(xs - x) + np.abs(ys - y) + 0.4 * np.abs(xs - x + ys - y)
        closer = away < nearest
        nearest[closer] = away[closer]
        out[closer] = rng.uniform(-1, 1)
    return out


def _textures():
    """The banks of textures: drawn once, rolled by a random offset for every picture."""
    rng = np.random.default_rng(7)
    n = BIG
    rock = 0.6 * _noise(rng, n, 22) + 0.4 * _noise(rng, n, 60)
    rock -= 0.9 * (np.abs(_noise(rng, n, 9)) < 0.05)  # cracks
    return {
        "fine": _noise(rng, n, 90),
        "blotch": 0.7 * _noise(rng, n, 14) + 0.5 * _noise(rng, n, 50),
        "brushed": _noise(rng, n, 4, 40),
        "grain": 0.6 * np.sin(16 * _noise(rng, n, 30, 0.12)) + 0.3 * _noise(rng, n, 80, 0.1),
        "rock": rock,
        "facet": _facets(rng, n, 150),
    }


def _backgrounds():
    """A few large pictures for every background: a picture is a random crop of one of them."""
    rng = np.random.default_rng(11)
    n = SIZE + 32
    ys, xs = np.mgrid[0:n, 0:n].astype(np.float32) / n
    spot = np.exp(-((xs - 0.5) ** 2 + (ys - 0.5) ** 2) / 0.16)[..., None]
    paint = lambda rgb: np.ones((n, n, 3), np.float32) * np.float32(rgb)
    mix = lambda a, b, t: a * (1 - t) + b * t
    bank = {name: [] for name in captions.BACKGROUNDS}
    for _ in range(6):
        bank["dark"].append(mix(paint((30, 32, 42)), paint((66, 70, 88)), spot))
        bank["light"].append(mix(paint((206, 206, 204)), paint((232, 232, 228)), spot))

        paper = paint((214, 188, 138)) + 13 * _noise(rng, n, 7)[..., None] + 5 * _noise(rng, n, 30)[..., None]
        bank["parchment"].append(paper * (0.74 + 0.28 * spot))

        down = ys[..., None] * 0.8 + 0.2 * xs[..., None]
        bank["gradient"].append(mix(paint((64, 54, 118)), paint((214, 140, 150)), down))

        wall = paint((74, 72, 74)) + 9 * _noise(rng, n, 40)[..., None]
        for row in range(7):
            top = int(row * n / 6.4)
            wall[max(0, top - 2): top + 1] *= 0.55
            for column in range(5):
                left = int((column + 0.5 * (row % 2)) * n / 4.0 + rng.integers(-3, 4))
                wall[top: top + n // 6, left: left + 2] *= 0.55
                wall[top + 1: top + n // 6, left + 2: left + n // 4] *= rng.uniform(0.86, 1.14)
        bank["dungeon"].append(wall * (0.62 + 0.50 * spot))

        wood = mix(paint((116, 142, 84)), paint((36, 62, 40)), ys[..., None])
        for depth in range(3):
            for _ in range(4):
                x, w = rng.uniform(0, n), rng.uniform(3, 6) + 2 * depth
                shade = (70 - 16 * depth, 82 - 20 * depth, 56 - 14 * depth)
                cv2.rectangle(wood, (int(x), 0), (int(x + w), n), shade, -1)
            wood = cv2.GaussianBlur(wood, (0, 0), 2.4 - 0.6 * depth)
        for _ in range(40):
            x, y = rng.uniform(0, n), rng.choice([rng.uniform(0, 0.2), rng.uniform(0.85, 1)]) * n
            green = rng.uniform(0.5, 1.0)
            cv2.circle(wood, (int(x), int(y)), int(rng.uniform(5, 11)), (52 * green, 92 * green, 44 * green), -1)
        bank["forest"].append(cv2.GaussianBlur(wood, (0, 0), 1.6))

        sky = mix(paint((14, 18, 48)), paint((56, 62, 116)), ys[..., None] ** 1.5)
        for _ in range(46):
            x, y = rng.integers(2, n - 2, 2)
            sky[y, x] = 235
            if rng.random() < 0.4:
                sky[y, x - 1: x + 2] += 90
                sky[y - 1: y + 2, x] += 90
        bank["night"].append(sky)
    return {k: [np.clip(v, 0, 255).astype(np.float32) for v in vs] for k, vs in bank.items()}


_BANK = {}


def bank():
    """Textures and backgrounds, made at the first use in each process."""
    if not _BANK:
        cv2.setNumThreads(1)
        _BANK["textures"] = _textures()
        _BANK["backgrounds"] = _backgrounds()
    return _BANK


# ------------------------------------------------------------------------------------- parts


class Item:
    """Parts put on top of one another: a height map, a role map and an edge map."""

    def __init__(self, rng, angle=0.0, scale=1.0):
        self.rng = rng
        turn = math.radians(angle + rng.uniform(-6, 6))
        size = UNIT * scale * rng.uniform(0.93, 1.05)
        stretch = rng.uniform(0.95, 1.05)
        cos, sin = math.cos(turn), math.sin(turn)
        self.matrix = np.float32([[cos * size * stretch, -sin * size], [sin * size * stretch, cos * size]])
        self.offset = np.float32([CENTRE, CENTRE]) + rng.uniform(-7, 7, 2).astype(np.float32)
        self.size = size
        self.height = np.zeros((BIG, BIG), np.float32)
        self.role = np.zeros((BIG, BIG), np.uint8)
        self.edge = np.ones((BIG, BIG), np.float32)
        self.tint = np.ones((BIG, BIG), np.float32)

    def place(self, points):
        return np.float32(points) @ self.matrix.T + self.offset

    def _add(self, mask, role, bevel, profile, lift, tint, line):
        x, y, w, h = cv2.boundingRect(mask)
        if w < 2 or h < 2:
            return
        x0, y0, x1, y1 = max(x - 1, 0), max(y - 1, 0), min(x + w + 1, BIG), min(y + h + 1, BIG)
        box = (slice(y0, y1), slice(x0, x1))
        cut = mask[box]
        away = cv2.distanceTransform(cut, cv2.DIST_L2, 3)
        width = max(bevel * self.size, 1.0)
        t = np.minimum(away / width, 1)
        if profile == "round":
            t = np.sqrt(1 - (1 - t) ** 2)
        on = cut > 0
        self.height[box][on] = (t * width * 0.8 + lift * self.size)[on]
        self.role[box][on] = role
        self.edge[box][on] = np.clip(away / 3.2 if line else away * 0 + 1, 0, 1)[on]
        self.tint[box][on] = tint

    def poly(self, points, role=MAIN, bevel=0.12, profile="round", lift=0.0, tint=1.0, line=True, smooth=0):
        points = np.float32(points)
        for _ in range(smooth):  # Chaikin's corner cutting
            following = np.roll(points, -1, axis=0)
            points = np.stack([points * 0.75 + following * 0.25, points * 0.25 + following * 0.75], 1).reshape(-1, 2)
        mask = np.zeros((BIG, BIG), np.uint8)
        cv2.fillPoly(mask, [np.round(self.place(points) * 16).astype(np.int32)], 255, shift=4)
        self._add(mask, role, bevel, profile, lift, tint, line)

    def mirror(self, points, **options):
        """The right half, from top to bottom, and its mirror image."""
        self.poly(list(points) + [(-x, y) for x, y in reversed(points)], **options)

    def line(self, points, width, role=MAIN, bevel=None, profile="round", lift=0.0, tint=1.0, line=True):
        mask = np.zeros((BIG, BIG), np.uint8)
        where = np.round(self.place(points)).astype(np.int32)
        cv2.polylines(mask, [where], False, 255, max(1, int(round(width * self.size))))
        self._add(mask, role, bevel or width * 0.5, profile, lift, tint, line)

    def disc(self, x, y, r, role=MAIN, bevel=None, profile="round", lift=0.0, tint=1.0, line=True, ry=None):
        around = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        points = np.stack([x + r * np.cos(around), y + (ry or r) * np.sin(around)], 1)
        self.poly(points, role, bevel or r, profile, lift, tint, line)

    def hoop(self, x, y, r, width, role=MAIN, start=0.0, end=360.0, ry=None, lift=0.0, tint=1.0):
        around = np.radians(np.linspace(start, end, 48))
        points = np.stack([x + r * np.cos(around), y + (ry or r) * np.sin(around)], 1)
        self.line(points, width, role, lift=lift, tint=tint)


def arc(x, y, r, start, end, count=14, ry=None):
    around = np.radians(np.linspace(start, end, count))
    return [(x + r * math.cos(a), y + (ry or r) * math.sin(a)) for a in around]


def star(x, y, outer, inner, points=5):
    out = []
    for i in range(2 * points):
        a = math.pi * i / points - math.pi / 2
        r = outer if i % 2 == 0 else inner
        out.append((x + r * math.cos(a), y + r * math.sin(a)))
    return out


# ------------------------------------------------------------------------------------- kinds
# Long weapons are drawn upright and turned to point to the top right.


def sword(i, v):
    w = 0.17 * v
    i.line([(0, 0.5), (0, 1.0)], 0.13, HANDLE)
    i.disc(0, 1.05, 0.12, TRIM)
    i.mirror([(0, -1.25), (w, -1.0), (w * 1.05, 0.45)], bevel=0.17, profile="bevel")
    i.mirror([(0.42, 0.34), (0.45, 0.5), (0.1, 0.58)], role=TRIM, bevel=0.08)


def dagger(i, v):
    i.line([(0, 0.2), (0, 0.75)], 0.19, HANDLE)
    i.disc(0, 0.84, 0.16, TRIM)
    i.mirror([(0, -0.95), (0.13, -0.72), (0.25 * v, -0.25), (0.17, 0.2)], bevel=0.22, profile="bevel")
    i.mirror([(0.36, 0.02), (0.38, 0.16), (0.2, 0.3), (0, 0.33)], role=TRIM, bevel=0.1)


def axe(i, v):
    i.line([(-0.02, -0.95), (0, 1.15)], 0.14, HANDLE)
    i.poly([(-0.16, -0.86), (0.2, -0.82), (0.62, -1.1 * v)] + arc(0.3, -0.52, 0.62 * v, -55, 62) + [(0.2, -0.3), (-0.16, -0.34)],
           bevel=0.2, profile="bevel")
    i.poly([(-0.12, -0.84), (0.12, -0.84), (0.12, -0.34), (-0.12, -0.34)], TRIM, bevel=0.07)


def battle_axe(i, v):
    i.line([(0, -1.05), (0, 1.2)], 0.13, HANDLE)
    for side in (1, -1):
        points = [(0.0, -0.68), (0.18, -0.68), (0.42, -1.06 * v)] + arc(0.16, -0.48, 0.72 * v, -50, 50) + [(0.18, -0.28), (0, -0.28)]
        i.poly([(side * x, y) for x, y in points], bevel=0.2, profile="bevel")
    i.mirror([(0, -1.2), (0.1, -0.95), (0.1, -0.22)], role=TRIM, bevel=0.08)


def hammer(i, v):
    i.line([(0, -0.6), (0, 1.15)], 0.17, HANDLE)
    i.mirror([(0.46, -1.0), (0.46, -0.3)], bevel=0.13)
    for side in (1, -1):
        i.poly([(side * 0.44, -1.08), (side * 0.68 * v, -1.08), (side * 0.68 * v, -0.22), (side * 0.44, -0.22)], bevel=0.1)
    i.mirror([(0.1, -1.02), (0.1, -0.28)], role=TRIM, bevel=0.06)


def mace(i, v):
    i.line([(0, -0.3), (0, 1.15)], 0.13, HANDLE)
    i.disc(0, 1.12, 0.12, TRIM)
    for a in range(0, 360, 45):
        c, s = math.cos(math.radians(a)), math.sin(math.radians(a))
        i.poly([(0.68 * v * c, -0.6 + 0.68 * v * s), (0.36 * c - 0.15 * s, -0.6 + 0.36 * s + 0.15 * c),
                (0.36 * c + 0.15 * s, -0.6 + 0.36 * s - 0.15 * c)], TRIM, bevel=0.1, profile="bevel")
    i.disc(0, -0.6, 0.46 * v, lift=0.05)
    i.line([(-0.12, -0.1), (0.12, -0.1)], 0.1, TRIM)


def spear(i, v):
    i.line([(0, -0.6), (0, 1.35)], 0.105, HANDLE)
    i.mirror([(0, -1.35), (0.2 * v, -0.86), (0.16, -0.66), (0.07, -0.5)], bevel=0.16, profile="bevel")
    i.mirror([(0.1, -0.52), (0.1, -0.4)], role=TRIM, bevel=0.06)
    for x in (-0.16, 0.17):  # a ribbon in the main colour
        i.poly([(0, -0.4), (x * 1.5, -0.12), (x * 1.1, 0.16), (0.1 * x, -0.2)], bevel=0.06)


def bow(i, v):
    d = 0.62 * v
    i.line([(-0.32, -1.08), (-0.32, 1.08)], 0.035, PAPER, line=False)
    points = [(-0.32 + d * (1 - (y / 1.08) ** 2) ** 0.8, y) for y in np.linspace(-1.08, 1.08, 31)]
    i.line(points, 0.17)
    i.line([(-0.42, -1.16), (-0.30, -1.02)], 0.13)
    i.line([(-0.42, 1.16), (-0.30, 1.02)], 0.13)
    i.line(points[12:19], 0.22, HANDLE)


def crossbow(i, v):
    i.poly([(-0.13, -0.8), (0.13, -0.8), (0.13, 0.4), (0.24, 1.1), (-0.12, 1.15), (-0.13, 0.4)], HANDLE, bevel=0.1)
    i.line([(-0.94, -0.12), (0, 0.32), (0.94, -0.12)], 0.04, PAPER, line=False)
    i.line([(x, -0.62 + 0.55 * v * (abs(x) / 0.94) ** 1.8) for x in np.linspace(-0.94, 0.94, 25)], 0.2)
    i.line([(0, -1.15), (0, 0.25)], 0.07, TRIM)
    i.mirror([(0, -1.32), (0.13, -1.05)], role=TRIM, bevel=0.08, profile="bevel")


def staff(i, v):
    i.line([(0.0, -0.4), (0.04, 0.1), (-0.03, 0.6), (0.0, 1.35)], 0.13, HANDLE)
    i.hoop(0, -0.78, 0.46, 0.11, HANDLE, start=-40, end=220)
    i.disc(0, -0.80, 0.37 * v, bevel=0.4)
    i.line([(-0.1, -0.28), (0.1, -0.28)], 0.11)
    i.line([(-0.09, 0.45), (0.07, 0.45)], 0.09)


def wand(i, v):
    i.line([(0, -0.1), (0, 1.05)], 0.14, HANDLE)
    i.line([(0, 0.85), (0, 1.1)], 0.2, MAIN)
    i.poly(star(0, -0.5, 0.62 * v, 0.28 * v), bevel=0.24, profile="bevel")
    i.line([(-0.06, 0.08), (0.06, 0.08)], 0.12, TRIM)


def shield(i, v):
    half = [(0, -0.98), (0.45, -0.86), (0.84 * v, -0.84), (0.82 * v, -0.1), (0.6, 0.5), (0, 1.08)]
    i.mirror(half, role=TRIM, bevel=0.09)
    i.mirror([(x * 0.84, y * 0.84) for x, y in half], bevel=0.5, lift=0.03)
    i.line([(0, -0.74), (0, 0.82)], 0.08, TRIM, lift=0.05)
    i.line([(-0.66, -0.24), (0.66, -0.24)], 0.08, TRIM, lift=0.05)
    i.disc(0, -0.24, 0.19, TRIM, lift=0.08)


def helmet(i, v):
    i.poly([(-0.1, -0.95), (0.1, -1.2), (0.55, -1.15), (0.95, -0.65), (0.85, -0.5), (0.45, -0.85)], ACCENT, bevel=0.12, smooth=2)
    i.mirror([(0, -1.0), (0.42, -0.92), (0.72 * v, -0.55), (0.76 * v, 0.0), (0.68, 0.75), (0.3, 0.95), (0, 1.0)], bevel=0.5)
    i.mirror([(0.07, -0.99), (0.06, 0.98)], role=TRIM, bevel=0.06, lift=0.1)
    for side in (1, -1):
        i.poly([(side * x, y) for x, y in [(0.13, -0.16), (0.62, -0.24), (0.64, -0.06), (0.13, 0.03)]], DARK, bevel=0.04, tint=0.6)
        for y in (0.3, 0.46, 0.62):
            i.line([(side * 0.2, y), (side * 0.46, y - 0.03)], 0.06, DARK, line=False, tint=0.6)


def armour(i, v):
    i.mirror([(0.2, -0.72), (0.6 * v, -0.72), (0.58, -0.05), (0.5, 0.35), (0.62, 0.95), (0, 1.05)], bevel=0.4)
    for side in (1, -1):
        i.disc(side * 0.7 * v, -0.6, 0.34, ry=0.3, bevel=0.2)
        i.disc(side * 0.74 * v, -0.44, 0.27, ry=0.2, bevel=0.14)
    i.mirror([(0.33, -0.92), (0.28, -0.62), (0.0, -0.46)], role=DARK, bevel=0.1, tint=0.7)
    i.hoop(0, -0.92, 0.36, 0.09, TRIM, start=0, end=180, ry=0.42)
    i.line([(0, -0.46), (0, 0.3)], 0.06, TRIM, lift=0.1)
    i.line([(-0.5, 0.4), (0.5, 0.4)], 0.16, HANDLE, lift=0.1)
    i.disc(0, 0.4, 0.12, TRIM, lift=0.15)


def boots(i, v):
    for x, y, tint in ((-0.36, -0.14, 0.8), (0.14, 0.1, 1.0)):
        shape = [(-0.36, -0.85), (0.24, -0.85), (0.22, 0.1), (0.3, 0.32), (0.72 * v, 0.42), (0.8 * v, 0.72), (-0.4, 0.72), (-0.34, 0.2)]
        i.poly([(a + x, b + y) for a, b in shape], bevel=0.26, smooth=1, tint=tint)
        i.poly([(a + x, b + y) for a, b in [(-0.42, 0.68), (0.82 * v, 0.68), (0.82 * v, 0.82), (-0.42, 0.82)]], DARK, bevel=0.05)
        i.line([(x - 0.38, y - 0.78), (x + 0.26, y - 0.78)], 0.2, TRIM, tint=tint)
        i.line([(x - 0.34, y + 0.04), (x + 0.24, y + 0.04)], 0.11, HANDLE, tint=tint)


def gloves(i, v):
    for k, (x, top) in enumerate(((-0.38, -0.72), (-0.12, -1.0), (0.15, -0.96), (0.40, -0.68))):
        i.line([(x * 0.95, -0.05), (x * v, top)], 0.24, bevel=0.13)
        i.line([(x * 0.97 - 0.1, top * 0.45), (x * 0.97 + 0.1, top * 0.45)], 0.05, DARK, line=False)
    i.line([(0.4, 0.3), (0.62, 0.08), (0.8, -0.26)], 0.25, bevel=0.13)
    i.poly([(-0.52, -0.15), (0.52, -0.15), (0.5, 0.42), (0.36, 0.56), (-0.36, 0.56), (-0.5, 0.42)], bevel=0.3)
    i.poly([(-0.4, 0.5), (0.4, 0.5), (0.58, 1.05), (-0.58, 1.05)], bevel=0.12, tint=0.92)
    i.line([(-0.4, 0.52), (0.4, 0.52)], 0.13, TRIM)
    i.line([(-0.56, 1.02), (0.56, 1.02)], 0.12, TRIM)


def ring(i, v):
    i.hoop(0, 0.3, 0.62 * v, 0.24)
    i.mirror([(0.3, -0.42), (0.22, -0.18)], role=TRIM, bevel=0.06)
    i.poly([(-0.26, -1.0), (0.26, -1.0), (0.46, -0.72), (0, -0.26), (-0.46, -0.72)], bevel=0.1, profile="bevel", tint=1.12)
    i.poly([(-0.26, -1.0), (0.26, -1.0), (0.16, -0.76), (-0.16, -0.76)], bevel=0.1, profile="bevel", tint=1.3)


def amulet(i, v):
    around = np.linspace(math.pi * 0.56, math.pi * 2.44, 19)
    for k, a in enumerate(around):  # the chain
        i.disc(0.62 * v * math.cos(a), -0.42 + 0.62 * math.sin(a), 0.085, TRIM)
    i.disc(0, 0.5, 0.58, TRIM, bevel=0.12)
    i.disc(0, 0.5, 0.46, bevel=0.3, lift=0.03)
    i.disc(0, -0.08, 0.12, TRIM)
    i.poly(star(0, 0.5, 0.3, 0.1, 4), bevel=0.1, profile="bevel", tint=1.3, lift=0.2)


def crown(i, v):
    i.disc(0, 0.52, 0.78, DARK, ry=0.2, tint=0.8)
    tips = [(-0.92, -0.45), (-0.46, -0.72 * v), (0, -0.9 * v), (0.46, -0.72 * v), (0.92, -0.45)]
    valleys = [(-0.56, 0.0), (-0.22, -0.08), (0.22, -0.08), (0.56, 0.0)]
    top = [p for pair in zip(tips, valleys) for p in pair] + [tips[-1]]
    i.poly(top + [(0.78, 0.55)] + arc(0, 0.55, 0.78, 0, 180, ry=0.22) + [(-0.78, 0.55)], bevel=0.14)
    for x, y in tips:
        i.disc(x, y, 0.12, TRIM)
    i.line(arc(0, 0.34, 0.8, 5, 175, ry=0.2), 0.08, TRIM, lift=0.05)
    for x, y in ((0, 0.28), (-0.46, 0.2), (0.46, 0.2)):
        i.disc(x, y, 0.13, ACCENT, lift=0.1)


def potion(i, v):
    i.poly([(-0.18, -1.12), (0.18, -1.12), (0.15, -0.8), (-0.15, -0.8)], HANDLE, bevel=0.1, tint=1.3)
    i.poly([(-0.17, -0.9), (0.17, -0.9), (0.17, -0.25), (-0.17, -0.25)], GLASS, bevel=0.1)
    i.line([(-0.2, -0.82), (0.2, -0.82)], 0.13, GLASS)
    i.disc(0, 0.32, 0.74 * v, GLASS, bevel=0.2)
    i.poly(arc(0, 0.32, 0.66 * v, -18, 198), bevel=0.5, lift=0.05)
    i.disc(0, 0.13, 0.6 * v, ry=0.1, bevel=0.1, tint=1.25, line=False)
    for x, y, r in ((0.2, 0.5, 0.09), (-0.1, 0.68, 0.07), (0.05, 0.34, 0.05)):
        i.disc(x, y, r, tint=1.35, line=False, lift=0.4)
    i.line(arc(0, 0.32, 0.54 * v, 185, 235), 0.08, PAPER, line=False, lift=0.5)


def scroll(i, v):
    i.poly([(-0.56, -0.8), (0.56, -0.8), (0.56, 0.8), (-0.56, 0.8)], bevel=0.08)
    for k, y in enumerate(np.linspace(-0.46, 0.46, 5)):
        i.line([(-0.4, y), (0.4 if k % 2 == 0 else 0.2 * v, y)], 0.065, DARK, line=False, tint=0.8)
    for y in (-0.86, 0.86):
        i.line([(-0.82, y), (0.82, y)], 0.15, HANDLE)
        i.poly([(-0.66, y - 0.2), (0.66, y - 0.2), (0.66, y + 0.2), (-0.66, y + 0.2)], bevel=0.22, tint=0.96)


def book(i, v):
    i.poly([(-0.6, -0.78), (0.68, -0.92), (0.88, -0.7), (0.88, 0.88), (-0.4, 1.02), (-0.6, 0.8)], MAIN, bevel=0.06, tint=0.7)
    i.poly([(-0.56, -0.72), (0.66, -0.84), (0.82, -0.66), (0.82, 0.80), (-0.38, 0.92)], PAPER, bevel=0.03)
    i.poly([(-0.74, -0.84), (0.6, -0.98), (0.6, 0.72), (-0.74, 0.86)], bevel=0.08)
    i.poly([(-0.74, -0.84), (-0.5, -0.865), (-0.5, 0.835), (-0.74, 0.86)], bevel=0.1, tint=0.8)
    for x, y in ((0.5, -0.86), (0.5, 0.62)):
        i.disc(x, y, 0.14, TRIM)
    i.poly(star(0.06, -0.08, 0.36 * v, 0.14, 4), TRIM, bevel=0.1, profile="bevel")


def key(i, v):
    i.hoop(0, -0.68, 0.36 * v, 0.22)
    i.line([(0, -0.28), (0, 1.12)], 0.19)
    i.poly([(0.04, 0.98), (0.5, 0.98), (0.5, 1.16), (0.04, 1.16)], bevel=0.08)
    i.poly([(0.04, 0.6), (0.42, 0.6), (0.42, 0.8), (0.04, 0.8)], bevel=0.08)
    i.line([(-0.2, -0.26), (0.2, -0.26)], 0.15, TRIM)


def chest(i, v):
    i.poly([(-0.92, -0.1), (0.92, -0.1), (0.88, 0.84), (-0.88, 0.84)], bevel=0.1, tint=0.9)
    i.poly(arc(0, -0.1, 0.96, 180, 360, ry=0.72 * v), bevel=0.3)
    for x in (-0.78, 0.78):
        i.line([(x, -0.45 * v), (x, 0.84)], 0.17, TRIM, lift=0.05)
    i.line([(-0.96, -0.1), (0.96, -0.1)], 0.14, TRIM, lift=0.08)
    i.line([(-0.88, 0.82), (0.88, 0.82)], 0.1, TRIM, lift=0.05)
    i.mirror([(0.19, -0.24), (0.19, 0.12), (0, 0.24)], role=TRIM, bevel=0.08, lift=0.15, tint=1.25)
    i.disc(0, -0.02, 0.06, DARK, tint=0.5, lift=0.2)


def gem(i, v):
    w, t = 0.95 * v, 0.5
    i.poly([(-t, -0.72), (t, -0.72), (w, -0.2), (0, 0.98), (-w, -0.2)], bevel=0.03)
    facets = [
        ([(-t, -0.72), (-w, -0.2), (-0.38, -0.2)], 1.15), ([(-t, -0.72), (0, -0.72), (-0.38, -0.2)], 1.5),
        ([(0, -0.72), (-0.38, -0.2), (0.38, -0.2)], 1.25), ([(0, -0.72), (t, -0.72), (0.38, -0.2)], 1.05),
        ([(t, -0.72), (w, -0.2), (0.38, -0.2)], 0.85), ([(-w, -0.2), (-0.38, -0.2), (0, 0.98)], 1.1),
        ([(-0.38, -0.2), (0.38, -0.2), (0, 0.98)], 0.92), ([(0.38, -0.2), (w, -0.2), (0, 0.98)], 0.66),
    ]
    for points, tint in facets:
        i.poly(points, bevel=0.02, tint=tint)


def coin(i, v):
    i.disc(0.07, 0.07, 0.95, bevel=0.06, tint=0.7)
    i.disc(0, 0, 0.94, bevel=0.1)
    i.disc(0, 0, 0.76, bevel=0.05, tint=0.82)
    i.poly(star(0, 0, 0.6 * v, 0.26), bevel=0.14, profile="bevel", lift=0.05, tint=1.12)


# The function of each kind, its angle and its scale.
KINDS = {
    "sword": (sword, 45, 1.16), "dagger": (dagger, 45, 1.25), "axe": (axe, 35, 1.0), "battle axe": (battle_axe, 0, 1.0),
    "hammer": (hammer, 35, 1.02), "mace": (mace, 45, 1.08), "spear": (spear, 45, 1.12), "bow": (bow, 30, 1.04),
    "crossbow": (crossbow, 40, 1.0), "staff": (staff, 40, 1.06), "wand": (wand, 40, 1.12), "shield": (shield, 0, 1.0),
    "helmet": (helmet, 0, 0.98), "armour": (armour, 0, 1.02), "boots": (boots, 0, 1.06), "gloves": (gloves, 5, 1.02),
    "ring": (ring, 0, 1.1), "amulet": (amulet, 0, 0.98), "crown": (crown, 0, 1.08), "potion": (potion, 8, 1.02),
    "scroll": (scroll, 12, 0.98), "book": (book, 4, 0.98), "key": (key, 40, 1.04), "chest": (chest, 0, 1.02),
    "gem": (gem, 0, 1.0), "coin": (coin, 0, 0.95),
}

# ----------------------------------------------------------------------------------- shading

_LIGHT = np.float32([-0.52, -0.60, 0.61])
_HALF = np.float32([-0.29, -0.335, 0.897])  # between the light and the eye


def shade(item, colour, material):
    """The item's colours at full size, lit from the top left, and its coverage."""
    rng = item.rng
    gloss, power, texture, strength, trim = MATERIALS[material]
    base = np.float32(COLOURS[colour])
    handle = (92, 62, 40) if material not in ("stone", "bone", "iron", "obsidian") else tuple(0.62 * c for c in trim)
    accent = base * 0.82 if max(base) > 60 else base + 26
    table = np.zeros((8, 3), np.float32)
    for role, rgb in ((MAIN, base), (HANDLE, handle), (TRIM, trim), (DARK, (40, 36, 42)),
                      (PAPER, (238, 230, 208)), (ACCENT, accent), (GLASS, base * 0.25 + np.float32((150, 165, 172)))):
        table[role] = rgb
    table *= np.float32(1) + rng.uniform(-0.05, 0.05, (8, 1)).astype(np.float32)
    shine = np.float32([0, gloss, 0.12, max(gloss, 0.3), 0.1, 0.0, gloss, 0.9]) * 150
    grip = np.float32([0, strength, 0.12, 0.7 * strength, 0.05, 0.04, strength, 0.0])

    height = cv2.GaussianBlur(item.height, (0, 0), 1.3)
    dx = cv2.Sobel(height, cv2.CV_32F, 1, 0, scale=0.125)
    dy = cv2.Sobel(height, cv2.CV_32F, 0, 1, scale=0.125)
    norm = 1 / np.sqrt(dx * dx + dy * dy + 1)
    light = np.maximum((_LIGHT[2] - _LIGHT[0] * dx - _LIGHT[1] * dy) * norm, 0)
    half = np.maximum((_HALF[2] - _HALF[0] * dx - _HALF[1] * dy) * norm, 0)

    pattern = bank()["textures"][texture]
    pattern = np.roll(pattern, tuple(rng.integers(0, BIG, 2)), (0, 1))
    amount = item.tint * (0.42 + 0.92 * light) * (1 + pattern * grip[item.role])
    amount *= 0.45 + 0.55 * item.edge
    ground = 0.04 * (CENTRE - np.arange(BIG, dtype=np.float32)) / CENTRE * 2  # lighter towards the top
    amount += ground[:, None]
    out = table[item.role] * amount[..., None]
    out += (np.power(half, power) * shine[item.role] * item.edge)[..., None]
    return np.clip(out, 0, 255), item.role > 0


# ----------------------------------------------------------------------------------- effects
# Each takes the picture, the item's coverage (both at SIZE) and draws behind or in front.


def _over(picture, rgb, alpha):
    alpha = alpha[..., None]
    picture *= 1 - alpha
    picture += alpha * np.float32(rgb)


def _shift_up(mask, pixels, sway):
    matrix = np.float32([[1, 0, sway], [0, 1, -pixels]])
    return cv2.warpAffine(mask, matrix, (mask.shape[1], mask.shape[0]))


def _rim(rng, cover, count):
    """Random points of the outline with the direction away from the item."""
    contours, _ = cv2.findContours((cover > 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = np.concatenate([c[:, 0] for c in contours]) if contours else np.int32([[64, 64]])
    start = rng.integers(0, len(points))
    at = (start + np.arange(count) * len(points) / count + rng.uniform(-4, 4, count)).astype(int) % len(points)
    soft = cv2.GaussianBlur(cover, (0, 0), 5)
    gx, gy = cv2.Sobel(soft, cv2.CV_32F, 1, 0), cv2.Sobel(soft, cv2.CV_32F, 0, 1)
    for x, y in points[at]:
        n = np.float32([-gx[y, x], -gy[y, x]])
        yield np.float32([x, y]), n / (np.linalg.norm(n) + 1e-6)


def _stroke(layer, points, width, value=1.0):
    cv2.polylines(layer, [np.round(np.float32(points) * 8).astype(np.int32)], False, value, width, cv2.LINE_AA, 3)


def _fill(layer, points, value=1.0):
    cv2.fillPoly(layer, [np.round(np.float32(points) * 8).astype(np.int32)], value, cv2.LINE_AA, 3)


def _blank():
    return np.zeros((SIZE, SIZE), np.float32)


def flaming(rng, picture, cover, colour, front):
    heat = _blank()
    body = cover if not front else cover * (np.linspace(0, 1, SIZE, dtype=np.float32)[:, None] ** 2) * 0.55
    phase, lean = rng.uniform(0, 6.28), rng.uniform(-0.25, 0.25)
    for k in range(0, 26, 2):
        sway = 3.2 * math.sin(phase + k * 0.32) + lean * k
        heat = np.maximum(heat, _shift_up(body, k, sway) * (1 - k / 27))
    heat = cv2.GaussianBlur(heat, (0, 0), 2.6)
    ripple = bank()["textures"]["grain"][: SIZE, : SIZE]
    ripple = cv2.GaussianBlur(np.roll(ripple, tuple(rng.integers(0, SIZE, 2)), (0, 1)), (0, 0), 2.0)
    heat = np.clip(heat * 1.25 + 0.22 * ripple * heat, 0, 1)
    _over(picture, (214, 52, 10), np.clip(heat * 2.6 - 0.40, 0, 1) * (0.9 if not front else 0.35))
    _over(picture, (255, 146, 20), np.clip(heat * 2.6 - 0.95, 0, 1) * (0.95 if not front else 0.45))
    _over(picture, (255, 226, 96), np.clip(heat * 3.0 - 1.75, 0, 1) * (0.95 if not front else 0.25))


def frozen(rng, picture, cover, colour, front):
    if not front:
        mist = cv2.GaussianBlur(cover, (0, 0), 8)
        _over(picture, (186, 230, 250), np.clip(mist * 1.3, 0, 0.75))
    for (x, y), n in _rim(rng, cover, 11 if not front else 4):
        long, wide = rng.uniform(11, 20) * (1 if not front else 0.7), rng.uniform(3, 5)
        tip = np.float32([x, y]) + n * long
        side = np.float32([-n[1], n[0]]) * wide
        foot = np.float32([x, y]) - n * 4
        ice, lit = _blank(), _blank()
        _fill(ice, [foot + side, tip, foot - side])
        _fill(lit, [foot, tip, foot - side])
        _over(picture, (128, 196, 236), ice * 0.9)
        _over(picture, (224, 246, 255), lit * 0.9)


def poisonous(rng, picture, cover, colour, front):
    if not front:
        fume = cv2.GaussianBlur(cover, (0, 0), 7)
        _over(picture, (110, 200, 40), np.clip(fume * 1.2, 0, 0.62))
        return
    slime = _blank()
    for (x, y), n in _rim(rng, cover, 9):
        if n[1] > 0.3:  # drips hang from the lower side
            end = y + rng.uniform(7, 15)
            _stroke(slime, [(x, y - 3), (x, end)], 3)
            cv2.circle(slime, (int(x), int(end)), 3, 1.0, -1, cv2.LINE_AA)
    for _ in range(7):
        x, y, r = rng.uniform(12, 116), rng.uniform(8, 100), int(rng.integers(2, 5))
        cv2.circle(slime, (int(x), int(y)), r, 1.0, -1, cv2.LINE_AA)
    _over(picture, (34, 88, 10), cv2.dilate(slime, np.ones((3, 3))) * 0.8)
    _over(picture, (134, 232, 44), slime * 0.95)


def electric(rng, picture, cover, colour, front):
    if not front:
        glow = cv2.GaussianBlur(cover, (0, 0), 6)
        _over(picture, (70, 120, 255), np.clip(glow, 0, 0.5))
    bolts = _blank()
    for (x, y), n in _rim(rng, cover, 6 if not front else 2):
        at, way = np.float32([x, y]) - n * 3, n
        points = [at]
        for _ in range(4):
            turn = rng.uniform(-1.0, 1.0)
            step = np.float32([way[0] * math.cos(turn) - way[1] * math.sin(turn), way[0] * math.sin(turn) + way[1] * math.cos(turn)])
            at = at + step * rng.uniform(6, 10)
            points.append(at)
        _stroke(bolts, points, 2)
    halo = cv2.GaussianBlur(bolts, (0, 0), 2.6)
    _over(picture, (70, 130, 255), np.clip(halo * 2.4, 0, 0.85))
    _over(picture, (244, 248, 255), bolts)


def glowing(rng, picture, cover, colour, front):
    bright = np.float32(COLOURS[colour]) * 0.55 + np.float32((255, 250, 214)) * 0.45
    if not front:
        wide, close = cv2.GaussianBlur(cover, (0, 0), 13), cv2.GaussianBlur(cover, (0, 0), 5)
        _over(picture, bright, np.clip(wide * 1.5, 0, 0.75))
        _over(picture, (255, 252, 224), np.clip(close * 1.1, 0, 0.8))
        return
    sparks = _blank()
    for _ in range(5):
        x, y, r = rng.uniform(14, 114), rng.uniform(14, 114), rng.uniform(4, 7)
        _fill(sparks, [(x + a, y + b) for a, b in star(0, 0, r, r * 0.22, 4)])
    _over(picture, (255, 255, 240), sparks)


def cursed(rng, picture, cover, colour, front):
    if not front:
        murk = cv2.GaussianBlur(cover, (0, 0), 9)
        _over(picture, (74, 14, 104), np.clip(murk * 1.5, 0, 0.85))
    smoke = _blank()
    for (x, y), n in _rim(rng, cover, 9 if not front else 2):
        at, curl, points = np.float32([x, y]) - n * 3, rng.uniform(-0.45, 0.45), []
        way = math.atan2(n[1], n[0]) + rng.uniform(-0.4, 0.4)
        for k in range(9):
            points.append(at.copy())
            at += 3.2 * np.float32([math.cos(way), math.sin(way)])
            way += curl
        for k in range(8):
            _stroke(smoke, points[k: k + 2], max(1, 6 - (k * 2) // 3))
    edge = cv2.GaussianBlur(smoke, (0, 0), 1.5)
    _over(picture, (164, 40, 200), np.clip(edge * 1.6, 0, 0.7))
    _over(picture, (30, 6, 44), smoke * 0.95)


EFFECTS = {"flaming": flaming, "frozen": frozen, "poisonous": poisonous,
           "electric": electric, "glowing": glowing, "cursed": cursed}

# ----------------------------------------------------------------------------------- picture


def picture(rng, kind, colour, material=None, effect=None, background="dark"):
    """One picture, SIZE × SIZE × 3 bytes. The colour is that of the item's main parts."""
    draw, angle, scale = KINDS[kind]
    item = Item(rng, angle, scale * (0.88 if effect else 0.97))
    draw(item, rng.uniform(0.93, 1.07))
    rgb, on = shade(item, colour, material)

    # Premultiplied, so that the reduced edge pixels are not mixed with the empty surroundings.
    cover = on.astype(np.float32)
    small = cv2.resize(rgb * cover[..., None], (SIZE, SIZE), interpolation=cv2.INTER_AREA)
    cover = cv2.resize(cover, (SIZE, SIZE), interpolation=cv2.INTER_AREA)

    choices = bank()["backgrounds"][background]
    ground = choices[rng.integers(len(choices))]
    x, y = rng.integers(0, ground.shape[0] - SIZE, 2)
    out = ground[y: y + SIZE, x: x + SIZE] * np.float32(rng.uniform(0.93, 1.07))

    if not effect:  # a soft shadow; effects bring their own surroundings
        shadow = cv2.GaussianBlur(cv2.warpAffine(cover, np.float32([[1, 0, 3], [0, 1, 4]]), (SIZE, SIZE)), (0, 0), 3.5)
        _over(out, (8, 8, 12), shadow * 0.45)
    if effect:
        EFFECTS[effect](rng, out, cover, colour, front=False)
    line = np.clip(cv2.GaussianBlur(cv2.dilate(cover, np.ones((3, 3))), (0, 0), 0.6) * 1.2, 0, 1)
    _over(out, (14, 12, 18), line * 0.9)
    out *= (1 - cover)[..., None]
    out += small
    if effect:
        EFFECTS[effect](rng, out, cover, colour, front=True)
    return np.clip(out, 0, 255).astype(np.uint8)


def from_attributes(rng, a):
    return picture(rng, a["kind"], a["colour"], a["material"], a["effect"], a["background"])


def _batch(job):
    seed, count, everything = job
    rng = np.random.default_rng(seed)
    held = set() if everything else captions.held_out_pairs()
    attributes = [captions.random_attributes(rng, held) for _ in range(count)]
    return np.stack([from_attributes(rng, a) for a in attributes]), [captions.to_codes(a) for a in attributes]


def render(folder, count, seed, everything=False, workers=2, step=500):
    """Writes pictures.npy (bytes) and attributes.npy (codes); held-out pairs only with `everything`."""
    os.makedirs(folder, exist_ok=True)
    shape = (count, SIZE, SIZE, 3)
    pictures = np.lib.format.open_memmap(os.path.join(folder, "pictures.npy"), "w+", np.uint8, shape)
    codes = np.zeros((count, 5), np.int16)
    jobs = [((seed, k), min(step, count - k), everything) for k in range(0, count, step)]
    start = time.time()
    with multiprocessing.Pool(workers) as pool:
        for job, (some, their) in zip(jobs, pool.imap(_batch, jobs)):
            k = job[0][1]
            pictures[k: k + len(some)] = some
            codes[k: k + len(some)] = their
    pictures.flush()
    np.save(os.path.join(folder, "attributes.npy"), codes)
    with open(os.path.join(folder, "about.json"), "w") as f:
        json.dump({"count": count, "seed": seed, "everything": everything, "seconds": round(time.time() - start, 1)}, f)


def sheet(path, seed=0):
    """Every kind in six colours and materials, then every effect, so that a person can judge."""
    rng = np.random.default_rng(seed)
    colours, materials = list(COLOURS), list(MATERIALS)
    rows = []
    for k, kind in enumerate(KINDS):
        row = []
        for c in range(8):
            effect = list(EFFECTS)[(k + c) % 6] if c >= 5 else None
            material = materials[(k + c * 2) % 9] if c >= 2 else None
            row.append(picture(rng, kind, colours[(k * 5 + c * 7) % 12], material, effect, captions.BACKGROUNDS_LIST[(k + c) % 7]))
        rows.append(np.concatenate(row, 1))
    half = len(rows) // 2
    image = np.concatenate([np.concatenate(rows[:half], 0), np.concatenate(rows[half:], 0)], 1)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    cv2.imwrite(path, image[..., ::-1])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", help="write a sheet of examples to this PNG and stop")
    parser.add_argument("--out", default="build/demo/data", help="folder of the pictures")
    parser.add_argument("--count", type=int, default=30000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--everything", action="store_true", help="held-out pairs too (for the classifier)")
    options = parser.parse_args()
    if options.sheet:
        sheet(options.sheet, options.seed)
    else:
        render(options.out, options.count, options.seed, options.everything, options.workers)
