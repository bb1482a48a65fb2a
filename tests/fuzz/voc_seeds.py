"""Writes a few annotations for voc_fuzz to start from. Usage: voc_seeds.py FOLDER"""
import pathlib
import sys

HEAD = "<annotation><size><width>20</width><height>10</height><depth>3</depth></size>"


def box(*corners):
    return "<bndbox>" + "".join(f"<{n}>{c}</{n}>" for n, c in zip(("xmin", "ymin", "xmax", "ymax"), corners)) + "</bndbox>"


def thing(name, *corners, more=""):
    return f"<object><name>{name}</name>{more}{box(*corners)}</object>\n"


SEEDS = {
    "plain": HEAD + thing("cat", 1, 2, 10, 8) + "</annotation>",
    "fractions": HEAD + thing("dog", "1.5", "2e0", "1e1", "8.25", more="<difficult>1</difficult>") + "</annotation>",
    "bad": HEAD + thing("a", "nan", 1, 5, 5) + thing("b", 5, 5, 5, 5) + thing("c", "1e30", "-inf", "x", "") + "</annotation>",
    "no_size": "<annotation>" + thing("cat", 1, 2, 10, 8) + "</annotation>",
    "part": HEAD + thing("person", 1, 2, 10, 8, more="<part><name>head</name>" + box(1, 1, 2, 2) + "</part>") + "</annotation>",
    "markup": "<?xml version='1.0'?><!-- a --><annotation x='>' y=\"'\"><![CDATA[<a>]]>&amp;&#65;&lt;" + thing("<![CDATA[c]]>", 1, 1, 2, 2)
    + "<b/></annotation>",
    "doctype": "<!DOCTYPE a [<!ENTITY b 'c'>]><annotation>&b;</annotation>",
    "deep": "<annotation>" + "<a>" * 100 + "</a>" * 100 + "</annotation>",
    "bom": "\ufeff" + HEAD + "</annotation>",
}

folder = pathlib.Path(sys.argv[1])
for name, text in SEEDS.items():
    (folder / name).write_text(text, encoding="utf-8")
