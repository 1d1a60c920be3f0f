import gzip
import hashlib
import http.server
import threading

import pytest

from data_prep import catalog, download
from data_prep.catalog import Archive
from rec_utils.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_DATA", str(tmp_path))
    return tmp_path / "downloads"


@pytest.fixture
def server():
    """A server of one file that knows byte ranges unless told otherwise."""

    class Handler(http.server.BaseHTTPRequestHandler):
        content, ranges, cut, gzip, log = b"", True, None, False, []

        def do_GET(self):
            asked = self.headers.get("Range")
            Handler.log.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and Handler.ranges else 0
            body = Handler.content[start:]
            self.send_response(206 if asked and Handler.ranges else 200)
            if Handler.gzip and "gzip" in self.headers.get("Accept-Encoding", ""):
                body = gzip.compress(body)
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: Handler.cut])

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        Handler.url = f"http://127.0.0.1:{running.server_port}/ml-1m.zip"
        yield Handler
        running.shutdown()


@pytest.fixture
def entry(server):
    """ML-1M, as if its archive were the server's file."""
    server.content = bytes(range(256)) * 400
    digest = hashlib.sha256(server.content).hexdigest()
    archive = Archive(url=server.url, size=len(server.content), sha256=digest)
    return catalog.entry("ml-1m").model_copy(update={"archive": archive})


def test_fetch_downloads_once(server, entry, folder):
    assert download.fetch(entry) == folder / "ml-1m.zip"
    assert (folder / "ml-1m.zip").read_bytes() == server.content
    download.fetch(entry)
    assert server.log == [None]
    (folder / "ml-1m.zip").write_bytes(b"altered")
    with pytest.raises(UserError, match=r"ml-1m.zip has 7 bytes instead of"):
        download.fetch(entry)


@pytest.mark.fault("no network", "fetch")
@pytest.mark.parametrize("ranges", [True, False])
def test_a_stopped_fetch_goes_on_where_it_stopped(ranges, server, entry, folder):
    server.cut = 40_000
    with pytest.raises(UserError, match=r"could not be fetched \(.+\): run the same command again"):
        download.fetch(entry)
    assert not (folder / "ml-1m.zip").exists()
    assert (folder / "ml-1m.zip.part").stat().st_size == 40_000
    server.cut, server.ranges = None, ranges
    assert download.fetch(entry).read_bytes() == server.content
    assert server.log[-1] == "bytes=40000-"


def test_a_server_that_could_compress_is_asked_for_the_plain_bytes(server, entry, folder):
    server.gzip = True
    assert download.fetch(entry).read_bytes() == server.content


@pytest.mark.fault("damaged file", "fetch", "It discards what arrived and says to fetch it again.")
def test_another_file_than_the_catalogs_is_discarded(server, entry, folder):
    server.content = server.content[:-1] + b"!"
    with pytest.raises(UserError, match=r"was altered.*discarded"):
        download.fetch(entry)
    assert not list(folder.glob("ml-1m.zip*"))


@pytest.mark.fault("no network", "fetch")
def test_without_network_fetch_ends_in_one_sentence(entry, folder):
    archive = entry.archive.model_copy(update={"url": "http://127.0.0.1:9/ml-1m.zip"})
    with pytest.raises(UserError, match=r"127.0.0.1:9/ml-1m.zip could not be fetched .*--from DIR") as caught:
        download.fetch(entry.model_copy(update={"archive": archive}))
    assert "\n" not in str(caught.value)
