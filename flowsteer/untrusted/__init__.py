"""The one place that opens files which others may have written, broken or made to harm.

Students, pipelines, checkpoints, comparisons and data come from disks and downloads. Whatever is
read from them goes through here:

    read_bytes(path, what, most_bytes)      a regular file of bounded size, whole
    read_text(path, what, most_bytes)       the same as UTF-8 text, without its byte order mark
    read_lines(path, what, most_bytes)      its lines, cut at real newlines alone
    read_json(path, what, most_bytes)       the same as JSON of bounded size, depth and numbers
    parse_json(text, where)                 JSON that came from elsewhere, such as a PNG's text
    read_header(path)                       names, dtypes, shapes and metadata of a safetensors file
    read_tensors(path, expected)            its tensors, known to be finite and of expected shapes
    check_finite(named_tensors, where)      tensors from elsewhere
    decoding(file, where)                   a picture of bounded size, in a with block
    open_archive(path, what)                a ZIP file of few plain files, in a with block
    open_regular(path, what, most_bytes)    for all else: an open file known to be regular

Type and size are checked before a byte is read, numbers before anything is built from them. Each
failure is a one-line `ValueError` that names the file and the fix, whatever was wrong; none is an
`OSError` but those of a disk that fails in the middle of reading. A path is shown by `name_of`, on
one line whatever it contains.
"""

from flowsteer.untrusted.archives import MOST_ARCHIVE_BYTES, Archive, open_archive
from flowsteer.untrusted.jsons import parse_json, read_json
from flowsteer.untrusted.opening import (
    name_of,
    open_regular,
    read_bytes,
    read_lines,
    read_text,
)
from flowsteer.untrusted.pictures import MOST_PICTURE_BYTES, decoding
from flowsteer.untrusted.tensors import check_finite, read_tensors
from flowsteer.untrusted.weights import Header, TensorInfo, check_real, read_header

__all__ = [
    "MOST_ARCHIVE_BYTES",
    "MOST_PICTURE_BYTES",
    "Archive",
    "Header",
    "TensorInfo",
    "check_finite",
    "check_real",
    "decoding",
    "name_of",
    "open_archive",
    "open_regular",
    "parse_json",
    "read_bytes",
    "read_header",
    "read_json",
    "read_lines",
    "read_tensors",
    "read_text",
]
