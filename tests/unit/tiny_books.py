"""Small raw files of Amazon's and BookCrossing's formats for tests."""

import gzip
import json

DAY = 86_400
START = 1_300_000_000


def reviews(rows):
    """Lines of JSON from (reviewer, asin, rating, days since the start)."""
    return [
        {
            "overall": float(rating),
            "verified": True,
            "reviewTime": "03 13, 2011",
            "reviewerID": reviewer,
            "asin": asin,
            "style": {"Format:": " Paperback"},
            "reviewerName": "Zoë",
            "reviewText": 'A "fine" book;\nread it, twice',
            "unixReviewTime": START + day * DAY,
        }
        for reviewer, asin, rating, day in rows
    ]


def meta(rows):
    """Lines of JSON from (asin, title, brand, categories)."""
    return [
        {"asin": asin, "title": title, "brand": brand, "category": categories, "also_buy": ["B0"]}
        for asin, title, brand, categories in rows
    ]


def packed(objects):
    """Bytes of a .json.gz file with one object a line."""
    return gzip.compress("".join(json.dumps(each) + "\n" for each in objects).encode())
