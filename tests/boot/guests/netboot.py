#!/usr/bin/env python3
"""netboot.py ADDRESS DIRECTORY: what a guest needs to boot from the network, in dom0: DHCP, TFTP and HTTP servers on
ADDRESS for one client. The boot file is boot.ipxe, by TFTP; everything in DIRECTORY is there by HTTP, port 80.
"""
import functools
import http.server
import ipaddress
import os
import socket
import struct
import sys
import threading

ADDRESS, DIRECTORY = sys.argv[1], sys.argv[2]
CLIENT = str(ipaddress.ip_address(ADDRESS) + 1)


def dhcp():
    """Answer DISCOVER with OFFER and REQUEST with ACK (RFC 2131): always the same address."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"xenbr0\0")
    sock.bind(("", 67))
    own = socket.inet_aton(ADDRESS)
    while True:
        packet, _ = sock.recvfrom(2048)
        if len(packet) < 241 or packet[0] != 1:
            continue
        options, at = {}, 240
        while at + 1 < len(packet) and packet[at] != 255:
            if packet[at] == 0:
                at += 1
                continue
            options[packet[at]] = packet[at + 2:at + 2 + packet[at + 1]]
            at += 2 + packet[at + 1]
        kind = options.get(53, b"\0")[0]
        if kind not in (1, 3):
            continue
        answer = bytearray(packet[:236])
        answer[0] = 2
        answer[16:20] = socket.inet_aton(CLIENT)
        answer[20:24] = own
        answer[108:108 + 9] = b"boot.ipxe"
        answer += b"\x63\x82\x53\x63" + bytes((53, 1, 2 if kind == 1 else 5)) + b"\x36\x04" + own
        answer += b"\x33\x04" + struct.pack(">I", 3600) + b"\x01\x04\xff\xff\xff\x00"
        answer += b"\x43\x09boot.ipxe" + b"\xff"
        sock.sendto(bytes(answer), ("255.255.255.255", 68))
        print(f"dhcp: {'offer' if kind == 1 else 'ack'} {CLIENT} for {packet[28:34].hex(':')}", flush=True)


def tftp():
    """Read requests, octet mode, 512-byte blocks, no options (RFC 1350)."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((ADDRESS, 69))
    while True:
        request, client = sock.recvfrom(2048)
        if request[:2] != b"\0\x01":
            continue
        name = os.path.basename(request[2:].split(b"\0")[0].decode())
        with open(os.path.join(DIRECTORY, name), "rb") as file:
            data = file.read()
        reply = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        reply.bind((ADDRESS, 0))
        reply.settimeout(5)
        for block in range(1, len(data) // 512 + 2):
            part = data[(block - 1) * 512:block * 512]
            for _ in range(5):
                reply.sendto(struct.pack(">HH", 3, block) + part, client)
                try:
                    if reply.recv(2048)[:4] == struct.pack(">HH", 4, block):
                        break
                except socket.timeout:
                    continue
        print(f"tftp: {name}, {len(data)} bytes", flush=True)


for server in (dhcp, tftp):
    threading.Thread(target=server, daemon=True).start()
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=DIRECTORY)
http.server.ThreadingHTTPServer((ADDRESS, 80), handler).serve_forever()
