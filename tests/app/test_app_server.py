"""Attacks on the page's server, over real sockets: who may talk to it, and what it can be made to do."""

from __future__ import annotations

import http.client
import json
import socket
import time

import pytest
from cases import shared
from readers import place
from served import serving
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tl_jacobian.app.guard import POLICY
from tl_jacobian.errors import ArgumentError


@pytest.fixture(scope="module")
def server():
    with serving({"tiny": place(shared("llama", "bridge"))}) as found:
        yield found


@pytest.fixture(scope="module")
def open_server():
    """One that listens everywhere."""
    with serving({"tiny": place(shared("llama", "bridge"))}, address="0.0.0.0") as found:
        yield found


def get(server, path="/", method="GET", body=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    own = {"Host": f"127.0.0.1:{server.port}", **{name.replace("_", "-"): value for name, value in headers.items()}}
    connection.putrequest(method, path, skip_host=True)
    for name, value in own.items():
        connection.putheader(name, value)
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer, answer.read().decode()


def live(server, origin=None, host=None, **headers):
    host = host or f"127.0.0.1:{server.port}"
    return connect(
        f"ws://{host}/live",
        sock=socket.create_connection(("127.0.0.1", server.port), 10),
        origin=origin or f"http://{host}",
        additional_headers=headers,
        proxy=None,
        max_size=None,
    )


def said(tab):
    head, _, body = tab.recv(timeout=60).partition(b"\n")
    return json.loads(head), json.loads(body) if body else None


def answered(tab, id):
    while True:
        head, body = said(tab)
        if head.get("id") == id and head["type"] in ("done", "failed", "cancelled"):
            return head, body


def read(tab, id=1, **view):
    tab.send(json.dumps({"id": id, "lane": str(id), "ask": {"do": "read", "view": {"prompt": "abc", **view}}}))
    return answered(tab, id)


def test_the_page_its_files_and_its_policy(server):
    answer, text = get(server)
    assert (answer.status, answer.headers["content-security-policy"]) == (200, POLICY)
    assert "unsafe" not in POLICY
    assert "require-trusted-types-for 'script'" in POLICY
    assert "http" not in text.replace("http-equiv", "")
    for name, kind in (("page.js", "text/javascript"), ("explore.css", "text/css")):
        answer, _ = get(server, f"/explore/{name}")
        assert (answer.status, answer.headers.get_content_type()) == (200, kind)
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/explore/../../../../etc/passwd",
        "/explore/..%2f..%2f..%2fpyproject.toml",
        "/explore/%2e%2e/%2e%2e/errors.py",
        "/explore//etc/passwd",
        "/explore/page.js/../../x",
        "/etc/passwd",
        "/docs",
        "/openapi.json",
        "//evil.example/",
        "/explore/page.js%00.css",
    ],
)
def test_no_path_leads_to_a_file_of_this_machine(server, path):
    answer, text = get(server, path)
    assert answer.status in (404, 400)
    assert "root:" not in text


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1:1", "127.0.0.1", "a@127.0.0.1:{port}", ""]
)
def test_another_host_is_refused_which_stops_dns_rebinding(server, host):
    host = host.format(port=server.port)
    assert get(server, Host=host)[0].status in (400, 421)
    if "@" not in host:
        with pytest.raises((InvalidStatus, ConnectionClosed)):
            live(server, host=host or "evil.example").recv(timeout=5)


@pytest.mark.parametrize(
    "origin",
    ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", "http://localhost:{port}"],
)
def test_a_page_of_another_site_can_not_compute_here(server, origin):
    origin = origin.format(port=server.port)
    assert get(server, Origin=origin)[0].status == 403
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        live(server, origin=origin).recv(timeout=5)


def test_a_connection_without_an_origin_can_not_compute(server):
    here = f"127.0.0.1:{server.port}"
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        connect(f"ws://{here}/live", proxy=None).recv(timeout=5)


def test_localhost_is_this_machine_too(server):
    with live(server, host=f"localhost:{server.port}") as tab:
        assert said(tab)[0]["type"] == "hello"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_nothing_can_be_sent(server, method):
    assert get(server, method=method)[0].status == 405


def test_a_body_of_50_megabytes_is_refused_before_it_is_read(server):
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        raw.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nContent-Length: {50 << 20}\r\n\r\n".encode())
        assert b" 413 " in raw.recv(4096)
    assert get(server)[0].status == 200


def test_slow_bodies_and_slow_headers_hold_nobody_up(server):
    slow = []
    for i in range(30):
        raw = socket.create_connection(("127.0.0.1", server.port), 10)
        raw.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX-{i}: a".encode())
        slow.append(raw)
    began = time.monotonic()
    assert get(server)[0].status == 200
    with live(server) as tab:
        said(tab)
        assert read(tab)[0]["type"] == "done"
    assert time.monotonic() - began < 20
    for raw in slow:
        raw.close()


def test_endless_headers_are_cut_off(server):
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        raw.sendall(f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nX: {'a' * 100_000}".encode())
        assert b" 400 " in raw.recv(4096) + raw.recv(4096)


def test_a_message_that_is_too_large_ends_its_own_tab_alone(server):
    with live(server) as other, live(server) as tab:
        said(other), said(tab)

        def too_much():
            tab.send("a" * (5 << 20))
            tab.recv(timeout=10)

        with pytest.raises(ConnectionClosed):
            too_much()
        assert read(other)[0]["type"] == "done"


@pytest.mark.parametrize(
    "message",
    [
        "{",
        '{"id": 1, "ask": {"do": "read", "view": {"prompt": "a", "model": "/etc/passwd"}}}',
        '{"id": 1, "ask": {"do": "load", "path": "/etc/passwd"}}',
        '{"id": 1, "ask": {"do": "export", "view": {"prompt": "a"}, "format": "../../x"}}',
        '{"id": 1, "ask": {"do": "read", "view": {"prompt": "a", "scope": "__import__(\'os\')"}}}',
        '{"id": 1, "ask": {"do": "read", "view": {"prompt": "%s"}}}' % ("a" * 500_000),
        "[" * 50_000,
        '{"id": 99999999999999999999}',
    ],
)
def test_what_is_no_request_is_a_message_and_the_tab_lives_on(server, message):
    with live(server) as tab:
        said(tab)
        tab.send(message)
        head, _ = said(tab)
        while head["type"] == "started":
            head, _ = said(tab)
        assert head["type"] == "failed"
        assert "/work" not in head["message"]
        assert read(tab, 7)[0]["type"] == "done"


def test_hostile_texts_come_back_as_data(server):
    nasty = "</script><img src=x onerror=alert(1)>\u202e{{7*7}}"
    with live(server) as tab:
        said(tab)
        _, body = read(tab, prompt=nasty)
        assert "".join(u["text"] for u in body["panels"]["text"][0]["units"][1:]).startswith("</script><img")


def test_elsewhere_than_on_loopback_only_with_the_token(open_server):
    assert open_server.token in open_server.url
    answer, text = get(open_server)
    assert (answer.status, open_server.token in text) == (401, False)
    assert get(open_server, "/?token=wrong")[0].status == 401
    with pytest.raises((InvalidStatus, ConnectionClosed)):
        live(open_server).recv(timeout=5)
    answer, _ = get(open_server, f"/?token={open_server.token}")
    cookie = answer.headers["set-cookie"]
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert "HttpOnly; SameSite=Strict" in cookie
    own = cookie.split(";")[0]
    assert get(open_server, Cookie=own)[0].status == 200
    assert get(open_server, Cookie=own, Host=f"evil.example:{open_server.port}")[0].status == 421
    with live(open_server, Cookie=own) as tab:
        assert said(tab)[0]["type"] == "hello"


def test_a_closed_tab_frees_its_work(server):
    worker = server.places["tiny"].worker
    with live(server) as tab:
        said(tab)
        for n in range(20):
            view = {"prompt": "abcdefgh" * 7 + str(n), "scope": "leave_one_out"}
            tab.send(json.dumps({"id": n, "lane": str(n), "ask": {"do": "read", "view": view}}))
        while worker.waiting < 3:
            time.sleep(0.01)
    end = time.monotonic() + 10
    while worker.waiting:
        assert time.monotonic() < end, "work of a closed tab goes on"
        time.sleep(0.02)


def test_a_port_that_is_taken_is_an_error_with_a_remedy(server):
    from tl_jacobian.app.server import Server

    with pytest.raises(ArgumentError, match=r"can't listen on '127.0.0.1', port \d+.*--port 0"):
        Server({}, port=server.port)
