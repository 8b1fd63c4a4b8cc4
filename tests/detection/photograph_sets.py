"""Detection datasets of the shipped photographs, with hand-drawn boxes and outlines."""

import json

from socodet.images.photographs import photographs

OBJECTS = {
    "astronaut": (400, 400, [("person", 20, 10, 340, 385), ("rocket", 290, 0, 100, 300)]),
    "hopper": (341, 400, [("person", 30, 20, 290, 375)]),
    "cameraman": (400, 400, [("person", 70, 60, 150, 320)]),
    "chelsea": (400, 266, [("animal", 45, 5, 280, 255)]),
    "raccoon": (400, 300, [("animal", 100, 10, 290, 285)]),
    "rocket": (400, 267, [("rocket", 185, 15, 30, 230)]),
}
CATEGORIES = ("animal", "person", "rocket")


def link_photographs(folder):
    """Links the photographs into `folder/.photographs`, where the file names in `coco_file` point."""
    if not (folder / ".photographs").exists():
        (folder / ".photographs").symlink_to(photographs())


def coco_file(path, names=tuple(OBJECTS), *, masks=True, crowd=()):
    """Writes a COCO file of these photographs; each outline is the box with its corners cut off."""
    link_photographs(path.parent)
    images, annotations = [], []
    for number, name in enumerate(names, 1):
        width, height, objects = OBJECTS[name]
        file_name = f".photographs/{name}.jpg"
        images.append({"id": number, "file_name": file_name, "width": width, "height": height})
        for kind, x, y, w, h in objects:
            entry = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": 10 * (1 + CATEGORIES.index(kind)),
                "bbox": [x, y, w, h],
                "area": w * h,
                "iscrowd": int(name in crowd),
            }
            if masks:
                c = min(w, h) // 4
                corners = [(x + c, y), (x + w - c, y), (x + w, y + c), (x + w, y + h - c)]
                corners += [(x + w - c, y + h), (x + c, y + h), (x, y + h - c), (x, y + c)]
                entry["segmentation"] = [[number for corner in corners for number in corner]]
            annotations.append(entry)
    categories = [{"id": 10 * n, "name": name} for n, name in enumerate(CATEGORIES, 1)]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))
    return path
