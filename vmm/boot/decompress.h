/* decompress.h: the four compressions a Linux bzImage may use, each from one flat buffer to
 * another.
 *
 * xz, gzip and zstd are Debian's static libraries (decompress.mk); LZ4's block format is small
 * enough to be ours. The libraries are ordinary user-space objects, so whoever calls decompress()
 * must, on the metal, for its duration:
 *  - have SSE on (CR4.OSFXSR = 1, CR0.EM = 0, CR0.TS = 0): they are compiled with it, and they
 *    clobber the XMM registers;
 *  - have FS base at a readable page (their stack protector reads %fs:0x28);
 *  - keep interrupts off, or take them and NMIs on other stacks (IST): the libraries use the red
 *    zone below RSP;
 *  - have 4 KiB of stack free (1.6 KiB measured, with the Debian 12 kernel and each format).
 */
#pragma once

#include "core/types.h"

enum decompress_format {
    DECOMPRESS_GZIP, /* RFC 1952 */
    DECOMPRESS_XZ,   /* The .xz File Format 1.1 */
    DECOMPRESS_ZSTD, /* RFC 8878 */
    DECOMPRESS_LZ4,  /* LZ4 frame format, "legacy frame" */
};

/* Recognise a format by its first bytes. Returns 0, or -ENOEXEC for none of ours. Any context. */
int decompress_probe(const void *src, size_t bytes, enum decompress_format *format);

/* A short name for messages: "gzip", "xz", "zstd", "lz4". */
const char *decompress_name(enum decompress_format format);

/* Bytes of working memory that decompressing src needs; for xz it depends on the stream's
 * dictionary (Debian 12's kernel: 33 MiB). 0 when none is needed. For a stream whose header is
 * broken the answer is small and decompress() will refuse it. Any context. */
size_t decompress_scratch_bytes(enum decompress_format format, const void *src, size_t bytes);

/* Hand in the working memory for later calls, any alignment; NULL, 0 takes it away. It is used from
 * its start by each call and holds nothing between calls. Boot CPU only. */
void decompress_set_arena(void *arena, size_t bytes);

/* Decompress all of src into dst and say how many bytes came out. Boot CPU only (one arena), in the
 * state that this file's head comment asks for.
 * Returns 0; -EIO for a corrupt or truncated stream; -ENOSPC when dst is too small; -ENOMEM when
 * the arena is. dst's contents are undefined after an error. */
int decompress(enum decompress_format format, const void *src, size_t src_bytes, void *dst,
               size_t dst_bytes, size_t *produced);
