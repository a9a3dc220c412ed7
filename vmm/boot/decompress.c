/* decompress.c: one uniform call over liblzma, zlib and libzstd, plus a decoder of LZ4 blocks.
 *
 * The libraries' allocations come from a bump arena that the caller hands in; nothing is freed, as
 * each decoder allocates once at its start.
 */
#include "boot/decompress.h"

#include "core/errno.h"
#include "core/string.h"

#define ZLIB_CONST               /* next_in points to const */
#define ZSTD_STATIC_LINKING_ONLY /* ZSTD_initStaticDCtx */
#include <lzma.h>
#include <zlib.h>
#include <zstd.h>
#include <zstd_errors.h>

#define ARENA_ALIGN    16
#define LZ4_BLOCK_MAX  (8u << 20) /* decompressed bytes of one legacy block */
#define LZ4_LEGACY     0x184c2102u
#define LZ4_MIN_MATCH  4
#define SCRATCH_MARGIN (256u << 10) /* decoder state beside xz's dictionary; gzip's whole need */

static struct {
    uint8_t *base;
    size_t bytes;
    size_t used;
} arena;

void decompress_set_arena(void *base, size_t bytes)
{
    size_t skew = -(uintptr_t)base & (ARENA_ALIGN - 1);

    arena.base = bytes > skew ? (uint8_t *)base + skew : NULL;
    arena.bytes = bytes > skew ? bytes - skew : 0;
    arena.used = 0;
}

static void *arena_alloc(void *opaque, size_t n, size_t size)
{
    size_t bytes;
    void *p;

    (void)opaque;
    if (__builtin_mul_overflow(n, size, &bytes) || bytes > arena.bytes - arena.used)
        return NULL;
    p = arena.base + arena.used;
    arena.used += MIN(ALIGN_UP(bytes, (size_t)ARENA_ALIGN), arena.bytes - arena.used);
    return p;
}

static void arena_free(void *opaque, void *p)
{
    (void)opaque;
    (void)p;
}

static uint32_t get_le32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

/* --- xz --- */

static int xz_decompress(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes,
                         size_t *produced)
{
    lzma_allocator allocator = {.alloc = arena_alloc, .free = arena_free};
    uint64_t memlimit = UINT64_MAX; /* the arena is the limit */
    size_t in = 0;

    switch (lzma_stream_buffer_decode(&memlimit, 0, &allocator, src, &in, src_bytes, dst, produced,
                                      dst_bytes)) {
    case LZMA_OK:
        return in == src_bytes ? 0 : -EIO;
    case LZMA_BUF_ERROR:
        return -ENOSPC;
    case LZMA_MEM_ERROR:
        return -ENOMEM;
    default:
        return -EIO;
    }
}

/* Read a multibyte integer (.xz format, 1.2) below 2^32; advances *pos. False past the end. */
static bool xz_vli(const uint8_t *src, size_t end, size_t *pos, uint32_t *value)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 63 && *pos < end; shift += 7) {
        uint8_t b = src[(*pos)++];

        v |= (uint64_t)(b & 0x7f) << shift;
        if (!(b & 0x80)) {
            *value = (uint32_t)MIN(v, UINT32_MAX);
            return true;
        }
    }
    return false;
}

/* The dictionary size in the first block's header (.xz format, 3.1 and 5.3.1), 0 if unreadable. */
static size_t xz_dictionary_bytes(const uint8_t *src, size_t bytes)
{
    enum { STREAM_HEADER = 12, HAS_COMPRESSED = 0x40, HAS_UNCOMPRESSED = 0x80, ID_LZMA2 = 0x21 };
    size_t pos = STREAM_HEADER + 2, end;
    uint32_t skipped, id, props;
    uint8_t flags, bits;

    if (bytes < STREAM_HEADER + 2)
        return 0;
    end = MIN(bytes, STREAM_HEADER + (src[STREAM_HEADER] + 1u) * 4);
    flags = src[STREAM_HEADER + 1];
    if ((flags & HAS_COMPRESSED) && !xz_vli(src, end, &pos, &skipped))
        return 0;
    if ((flags & HAS_UNCOMPRESSED) && !xz_vli(src, end, &pos, &skipped))
        return 0;
    for (unsigned i = 0; i <= (flags & 3u); i++) {
        if (!xz_vli(src, end, &pos, &id) || !xz_vli(src, end, &pos, &props) || props > end - pos)
            return 0;
        if (id == ID_LZMA2 && props == 1) {
            bits = src[pos] & 0x3f;
            return bits >= 40 ? UINT32_MAX : (size_t)(2 | (bits & 1)) << (bits / 2 + 11);
        }
        pos += props;
    }
    return 0;
}

/* --- gzip --- */

static void *zlib_alloc(void *opaque, unsigned n, unsigned size)
{
    return arena_alloc(opaque, n, size);
}

static int gzip_decompress(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes,
                           size_t *produced)
{
    enum { GZIP_WRAPPER = 16, WINDOW_BITS = 15 };
    z_stream z = {
        .next_in = src,
        .avail_in = (uInt)src_bytes,
        .next_out = dst,
        .avail_out = (uInt)dst_bytes,
        .zalloc = zlib_alloc,
        .zfree = arena_free,
    };
    int rc;

    if (src_bytes > UINT32_MAX || dst_bytes > UINT32_MAX)
        return -ENOSPC;
    rc = inflateInit2(&z, GZIP_WRAPPER + WINDOW_BITS);
    if (rc != Z_OK)
        return rc == Z_MEM_ERROR ? -ENOMEM : -EIO;
    rc = inflate(&z, Z_FINISH);
    *produced = z.total_out;
    if (rc == Z_STREAM_END)
        return z.avail_in == 0 ? 0 : -EIO;
    if (rc == Z_MEM_ERROR)
        return -ENOMEM;
    return rc == Z_BUF_ERROR && z.avail_out == 0 ? -ENOSPC : -EIO;
}

/* --- zstd --- */

static int zstd_decompress(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes,
                           size_t *produced)
{
    ZSTD_DCtx *ctx = ZSTD_initStaticDCtx(arena.base, arena.bytes);
    size_t rc;

    if (!ctx)
        return -ENOMEM;
    /* Exactly one frame of today's format: libc_shim.c leaves out the decoders of older ones, which
     * the library would try for a second frame. */
    if (ZSTD_findFrameCompressedSize(src, src_bytes) != src_bytes)
        return -EIO;
    rc = ZSTD_decompressDCtx(ctx, dst, dst_bytes, src, src_bytes);
    if (!ZSTD_isError(rc)) {
        *produced = rc;
        return 0;
    }
    return ZSTD_getErrorCode(rc) == ZSTD_error_dstSize_tooSmall ? -ENOSPC : -EIO;
}

/* --- LZ4 --- */

struct lz4 {
    const uint8_t *in, *in_end;
    uint8_t *out, *out_start, *out_end;
};

/* A length field's 255-continued tail (LZ4 block format, "Literals" and "Match"). */
static bool lz4_length(struct lz4 *z, size_t *length)
{
    uint8_t b;

    if (*length != 15)
        return true;
    do {
        if (z->in == z->in_end)
            return false;
        b = *z->in++;
        *length += b;
    } while (b == 255);
    return true;
}

static int lz4_literals(struct lz4 *z, size_t length)
{
    if (!lz4_length(z, &length) || length > (size_t)(z->in_end - z->in))
        return -EIO;
    if (length > (size_t)(z->out_end - z->out))
        return -ENOSPC;
    memcpy(z->out, z->in, length);
    z->in += length;
    z->out += length;
    return 0;
}

static int lz4_match(struct lz4 *z, size_t length)
{
    const uint8_t *from;
    size_t distance;

    if (z->in_end - z->in < 2)
        return -EIO;
    distance = z->in[0] | (size_t)z->in[1] << 8;
    z->in += 2;
    if (!lz4_length(z, &length) || distance == 0 || distance > (size_t)(z->out - z->out_start))
        return -EIO;
    length += LZ4_MIN_MATCH;
    if (length > (size_t)(z->out_end - z->out))
        return -ENOSPC;
    from = z->out - distance;
    if (distance >= length) {
        memcpy(z->out, from, length);
        z->out += length;
        return 0;
    }
    while (length--) /* source and copy overlap: a repeating pattern */
        *z->out++ = *from++;
    return 0;
}

/* One block: sequences of literals and a match; the last has literals only. */
static int lz4_block(struct lz4 *z)
{
    while (z->in < z->in_end) {
        uint8_t token = *z->in++;
        int rc = lz4_literals(z, token >> 4);

        if (rc)
            return rc;
        if (z->in == z->in_end)
            return 0;
        rc = lz4_match(z, token & 15);
        if (rc)
            return rc;
    }
    return -EIO;
}

static int lz4_decompress(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes,
                          size_t *produced)
{
    size_t pos = 4, out = 0;

    while (pos < src_bytes) {
        size_t room = MIN(dst_bytes - out, (size_t)LZ4_BLOCK_MAX);
        struct lz4 z;
        uint32_t block_bytes;
        int rc;

        if (src_bytes - pos < 4)
            return -EIO;
        block_bytes = get_le32(src + pos);
        pos += 4;
        if (block_bytes == LZ4_LEGACY) /* another frame, as `cat a.lz4 b.lz4` makes */
            continue;
        if (block_bytes == 0 || block_bytes > src_bytes - pos)
            return -EIO;
        z = (struct lz4){src + pos, src + pos + block_bytes, dst + out, dst + out,
                         dst + out + room};
        rc = lz4_block(&z);
        if (rc)
            return rc;
        pos += block_bytes;
        out = (size_t)(z.out - dst);
    }
    *produced = out;
    return 0;
}

/* --- the table --- */

static const struct format {
    const char *name;
    uint8_t magic[6];
    uint8_t magic_bytes;
    int (*decompress)(const uint8_t *src, size_t src_bytes, uint8_t *dst, size_t dst_bytes,
                      size_t *produced);
} formats[] = {
    [DECOMPRESS_GZIP] = {"gzip", {0x1f, 0x8b}, 2, gzip_decompress},
    [DECOMPRESS_XZ] = {"xz", {0xfd, '7', 'z', 'X', 'Z', 0}, 6, xz_decompress},
    [DECOMPRESS_ZSTD] = {"zstd", {0x28, 0xb5, 0x2f, 0xfd}, 4, zstd_decompress},
    [DECOMPRESS_LZ4] = {"lz4", {0x02, 0x21, 0x4c, 0x18}, 4, lz4_decompress},
};

int decompress_probe(const void *src, size_t bytes, enum decompress_format *format)
{
    for (size_t i = 0; i < ARRAY_SIZE(formats); i++) {
        const struct format *f = &formats[i];

        if (bytes >= f->magic_bytes && memcmp(src, f->magic, f->magic_bytes) == 0) {
            *format = (enum decompress_format)i;
            return 0;
        }
    }
    return -ENOEXEC;
}

const char *decompress_name(enum decompress_format format)
{
    return formats[format].name;
}

size_t decompress_scratch_bytes(enum decompress_format format, const void *src, size_t bytes)
{
    switch (format) {
    case DECOMPRESS_XZ:
        return xz_dictionary_bytes(src, bytes) + SCRATCH_MARGIN;
    case DECOMPRESS_ZSTD:
        return ZSTD_estimateDCtxSize() + ARENA_ALIGN;
    case DECOMPRESS_GZIP:
        return SCRATCH_MARGIN;
    case DECOMPRESS_LZ4:
        return 0;
    }
    return 0;
}

int decompress(enum decompress_format format, const void *src, size_t src_bytes, void *dst,
               size_t dst_bytes, size_t *produced)
{
    enum decompress_format found;

    *produced = 0;
    arena.used = 0;
    if (decompress_probe(src, src_bytes, &found) || found != format)
        return -EIO;
    return formats[format].decompress(src, src_bytes, dst, dst_bytes, produced);
}
