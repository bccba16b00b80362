"""Broken traces: each is refused with its line, what was read, what is allowed and how to repair it.

The texts are in ``tests/golden/trace_errors.txt``; ``SIMLAB_UPDATE_GOLDEN=1 pytest …`` writes them anew.
"""

import gzip
import json
import os
from pathlib import Path

import pytest

from simlab.errors import TraceError
from simlab.scenario.workload import TraceFormat
from simlab.workload import summarize
from simlab.workload.library import joint_table
from simlab.workload.locate import find_file
from simlab.workload.reader import TraceReader
from simlab.workload.summary import load_summary

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "trace_errors.txt"
HEAD = "t_s,input_tokens,output_tokens\n"
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
MOON = {"timestamp": 0, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}
WINDOWS = "client,window_start_s,rate_req_s,cv,dist,p1,p2\n"


def moon(**changes):
    return json.dumps({**MOON, **changes}) + "\n"


def summary(**changes):
    good = json.loads(load_summary("openorca").to_json())
    return json.dumps({**good, "pairs": {"prompt": [1, 2], "output": [3, 4]}, **changes})


CASES = {
    "empty file": ("t.csv", ""),
    "blank file": ("t.csv", "\n \n"),
    "header only": ("t.csv", HEAD),
    "no header": ("t.csv", "0.0,374,44\n4.3,396,109\n"),
    "unknown columns": ("t.csv", "when,in,out\n0,1,2\n"),
    "gzip cut off": ("t.csv.gz", gzip.compress((HEAD + "0,1,2\n" * 4000).encode(), mtime=0)[:60]),
    "gzip damaged": ("t.csv.gz", b"\x1f\x8b\x08\x00" + b"not gzip at all" * 4),
    "not UTF-8": ("t.csv", (HEAD + "0,1,2\n").encode() + b"1,\xff,3\n"),
    "not UTF-8 header": ("t.csv", b"t\xe9,input_tokens,output_tokens\n0,1,2\n"),
    "negative time": ("t.csv", HEAD + "-1,5,5\n"),
    "time goes back": ("t.csv", HEAD + "0,5,5\n7.5,5,5\n7.25,5,5\n"),
    "time NaN": ("t.csv", HEAD + "0,5,5\nnan,5,5\n"),
    "time infinite": ("t.csv", HEAD + "0,5,5\ninf,5,5\n"),
    "time too large for a float": ("t.csv", HEAD + "0,5,5\n1e999,5,5\n"),
    "time in the wrong unit": ("t.csv", HEAD + "0,5,5\n1700000000000,5,5\n"),
    "time empty": ("t.csv", HEAD + "0,5,5\n,5,5\n"),
    "time is text": ("t.csv", HEAD + "0,5,5\nnoon,5,5\n"),
    "tokens fractional": ("t.csv", HEAD + "0,5.5,5\n"),
    "tokens negative": ("t.csv", HEAD + "0,5,5\n1,5,-3\n"),
    "tokens NaN": ("t.csv", HEAD + "0,NaN,5\n"),
    "tokens huge": ("t.csv", HEAD + "0,5,99999999999\n"),
    "tokens text": ("t.csv", HEAD + "0,5,many\n"),
    "row cut short": ("t.csv", HEAD + "0,5,5\n\n1,5\n"),
    "row too long": ("t.csv", HEAD + "0,5,5,5\n"),
    "field too long": ("t.csv", HEAD + '0,"' + "5" * 200_000 + '",5\n'),
    "date is no date": ("a.csv", AZURE + "2023-11-16 18:15:46.68,1,2\nyesterday,1,2\n"),
    "date missing": ("a.csv", AZURE + "NaT,1,2\n"),
    "date with a bad offset": ("a.csv", AZURE + "2023-11-16 99:15:46+05:00,1,2\n"),
    "line is not JSON": ("m.jsonl", moon() + "{'timestamp': 1}\n"),
    "line is a list": ("m.jsonl", moon() + "[1, 2]\n"),
    "JSON bomb": ("m.jsonl", moon() + "[" * 200_000 + "\n"),
    "JSON line cut off": ("m.jsonl", moon() + moon()[:30]),
    "row without a key": ("m.jsonl", moon() + '{"timestamp": 1, "input_length": 5}\n'),
    "null tokens": ("m.jsonl", moon(input_length=None, hash_ids=[])),
    "tokens are a list": ("m.jsonl", moon(output_length=[1])),
    "blocks are no list": ("m.jsonl", moon(hash_ids=7)),
    "blocks are not ids": ("m.jsonl", moon(hash_ids=[1, None])),
    "more blocks than tokens": ("m.jsonl", moon() + moon(timestamp=5, hash_ids=[1, 2, 3])),
    "Parquet cut off": ("t.parquet", b"PAR1" + b"\0" * 50),
    "windows without lengths": ("m_client_windows.csv", WINDOWS + "0,0,1.5,1,Gamma,1,1\n"),
    "negative rate": ("m_client_windows.csv", WINDOWS + "0,0,1.5,1,G,1,1\n0,600,-2,1,G,1,1\n"),
    "all rates zero": ("m_client_windows.csv", WINDOWS + "0,0,0,1,G,1,1\n"),
    "windows without rows": ("m_client_windows.csv", WINDOWS),
}


def _of_map(tmp_path):
    (tmp_path / "t.csv").write_text("Arrival,prompt,out_tokens\n0,1,2\n")
    mapped = TraceFormat(arrival="arrival", prompt_tokens="prompt", output_tokens="output_tokens")
    TraceReader(tmp_path / "t.csv", mapped)


def _of_format(tmp_path):
    (tmp_path / "t.csv").write_text("timestamp,input_len,output_length,hash_ids\n0,1,2,3\n")
    TraceReader(tmp_path / "t.csv", "mooncake")


def _unknown_format(tmp_path):
    (tmp_path / "t.csv").write_text(HEAD + "0,1,2\n")
    TraceReader(tmp_path / "t.csv", "moncake")


def _broken_summary(tmp_path, text):
    (tmp_path / "s.json").write_text(text)
    load_summary("s.json", tmp_path)


OTHERS = {
    "map names other columns": _of_map,
    "format lacks a column": _of_format,
    "format misspelt": _unknown_format,
    "trace not found": lambda tmp_path: find_file("conversation_trace.jsonl", tmp_path),
    "unknown trace not found": lambda tmp_path: find_file("mine.csv", tmp_path),
    "trace is a folder": lambda tmp_path: find_file(".", tmp_path),
    "summary misspelt": lambda tmp_path: load_summary("azure-2023-cnv", tmp_path),
    "summary is not JSON": lambda tmp_path: _broken_summary(tmp_path, "{"),
    "summary of a later version": lambda tmp_path: _broken_summary(tmp_path, summary(schema_version=99)),
    "summary with faults": lambda tmp_path: _broken_summary(tmp_path, summary(requests=-1, colour="red")),
    "summary with uneven pairs": lambda tmp_path: _broken_summary(
        tmp_path, summary(pairs={"prompt": [1], "output": [1, 2]})
    ),
    "summary with steps but no length": lambda tmp_path: _broken_summary(
        tmp_path, summary(rate={"bin_s": 60.0, "rps": [1.0]})
    ),
    "length table without lengths": lambda tmp_path: (
        (tmp_path / "l.csv").write_text("a,b\n1,2\n"),
        joint_table("l.csv", tmp_path),
    ),
    "length table without rows": lambda tmp_path: (
        (tmp_path / "l.csv").write_text("input_length,output_length\n"),
        joint_table("l.csv", tmp_path),
    ),
}


def complaint(name, tmp_path):
    if name in OTHERS:
        with pytest.raises(TraceError) as caught:
            OTHERS[name](tmp_path)
    else:
        file, content = CASES[name]
        path = tmp_path / file
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(TraceError) as caught:
            summarize(path)
    return str(caught.value).replace(str(tmp_path), "DIR")


def golden():
    text = GOLDEN.read_text("utf-8") if GOLDEN.exists() else ""
    return dict(part.rstrip("\n").split("\n", 1) for part in text.split("## ")[1:])


@pytest.mark.parametrize("name", [*CASES, *OTHERS])
def test_a_broken_trace_is_refused_with_its_golden_text(name, tmp_path, monkeypatch):
    monkeypatch.delenv("SIMLAB_DATA", raising=False)
    text = complaint(name, tmp_path)
    assert text
    assert all(len(line) < 1200 for line in text.splitlines())
    if os.environ.get("SIMLAB_UPDATE_GOLDEN"):
        texts = {**golden(), name: text}
        kept = {each: texts[each] for each in (*CASES, *OTHERS) if each in texts}
        GOLDEN.write_text("".join(f"## {each}\n{what}\n\n" for each, what in kept.items()), "utf-8")
    assert text == golden()[name]


def test_the_data_folders_are_searched_in_order(tmp_path, monkeypatch):
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        if folder != "a":
            (tmp_path / folder / "t.csv").write_text(folder)
    monkeypatch.setenv("SIMLAB_DATA", os.pathsep.join(str(tmp_path / folder) for folder in ("b", "c")))
    assert find_file("t.csv", tmp_path / "a") == tmp_path / "b" / "t.csv"
    assert find_file("t.csv", tmp_path / "c") == tmp_path / "c" / "t.csv", "beside the scenario comes first"
    assert find_file(str(tmp_path / "c" / "t.csv"), None) == tmp_path / "c" / "t.csv"


def test_an_unreadable_file_says_so(tmp_path, monkeypatch):
    path = tmp_path / "t.csv"
    path.write_text(HEAD)

    def refused(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refused)
    with pytest.raises(TraceError, match="may not be read"):
        TraceReader(path)
