/* sources: vmm/boot/kernel_image.c vmm/boot/decompress.c */
/* libs: -llzma -lz -lzstd -llz4 */
/* test_kernel_image.c: a made-up kernel, packed each way into a bzImage, must come out whole; any
 * truncated or corrupted copy must be refused within its bounds (each copy is its own heap block,
 * so that the address sanitizer sees a wild read). TEST_KERNEL=path adds a real bzImage.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <lz4.h>
#include <lzma.h>
#include <stdio.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include "boot/decompress.h"
#include "boot/kernel_image.h"
#include "core/errno.h"
#include "core/string.h"

enum {
    ELF_BYTES = 300000,
    NOTE_AT = 0x1000,
    SETUP_BYTES = 1024, /* setup_sects = 1 */
    ENTRY = 0x1000040,
};

static uint8_t elf[ELF_BYTES];

static void put16(uint8_t *p, uint16_t v)
{
    memcpy(p, &v, 2);
}
static void put32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, 4);
}
static void put64(uint8_t *p, uint64_t v)
{
    memcpy(p, &v, 8);
}

static void program_header(unsigned i, uint32_t type, uint64_t offset, uint64_t paddr,
                           uint64_t file_bytes, uint64_t mem_bytes)
{
    uint8_t *p = elf + 64 + i * 56;

    put32(p, type);
    put64(p + 8, offset);
    put64(p + 24, paddr);
    put64(p + 32, file_bytes);
    put64(p + 40, mem_bytes);
    put64(p + 48, type == 4 ? 4 : 0x1000);
}

/* Two notes, the PVH entry's second, with a 4-byte or 8-byte description. */
static size_t notes(uint8_t *p, unsigned desc_bytes)
{
    put32(p, 4);
    put32(p + 4, 6);
    put32(p + 8, 6);
    memcpy(p + 12, "Xen", 4);
    memcpy(p + 16, "linux", 6);
    p += 24;
    put32(p, 4);
    put32(p + 4, desc_bytes);
    put32(p + 8, 18);
    memcpy(p + 12, "Xen", 4);
    if (desc_bytes == 4)
        put32(p + 16, ENTRY);
    else
        put64(p + 16, ENTRY);
    return 24 + 16 + desc_bytes;
}

static int make_elf(void **state)
{
    uint32_t seed = 1;

    (void)state;
    for (size_t i = 0; i < ELF_BYTES; i++) { /* compressible, but not by much */
        seed = seed * 1103515245 + 12345;
        elf[i] = i % 7 < 4 ? (uint8_t)(seed >> 24) : (uint8_t)(i >> 8);
    }
    memset(elf, 0, 64 + 4 * 56);
    memcpy(elf, "\177ELF\2\1\1", 7);
    put16(elf + 16, 2);
    put16(elf + 18, 62);
    put64(elf + 32, 64);
    put16(elf + 54, 56);
    put16(elf + 56, 4);
    program_header(0, 1, 0x2000, 0x1000000, 0x8000, 0x8000);
    program_header(1, 1, 0xa000, 0x3000000, 0x100, 0x5000);
    program_header(2, 1, 0xb000, 0x2000000, 0x3000, 0x3000);
    memset(elf + NOTE_AT, 0, 64);
    program_header(3, 4, NOTE_AT, 0x1000000, notes(elf + NOTE_AT, 8), 0);
    return 0;
}

/* --- making images --- */

struct image {
    uint8_t *bytes;
    size_t length;
};

static size_t pack(enum decompress_format format, uint8_t *out, size_t room)
{
    size_t n = 0;

    switch (format) {
    case DECOMPRESS_GZIP: {
        z_stream z = {.next_in = elf, .avail_in = ELF_BYTES, .next_out = out, .avail_out = room};

        assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        n = z.total_out;
        deflateEnd(&z);
        return n; /* ISIZE is its trailer */
    }
    case DECOMPRESS_XZ: { /* as the kernel's build: --check=crc32 --x86 --lzma2 */
        lzma_options_lzma lzma;
        lzma_filter filters[] = {
            {LZMA_FILTER_X86, NULL}, {LZMA_FILTER_LZMA2, &lzma}, {LZMA_VLI_UNKNOWN, NULL}};

        assert_false(lzma_lzma_preset(&lzma, 1));
        lzma.dict_size = 1 << 20;
        assert_int_equal(lzma_stream_buffer_encode(filters, LZMA_CHECK_CRC32, NULL, elf, ELF_BYTES,
                                                   out, &n, room),
                         LZMA_OK);
        break;
    }
    case DECOMPRESS_ZSTD:
        n = ZSTD_compress(out, room, elf, ELF_BYTES, 5);
        assert_false(ZSTD_isError(n));
        break;
    case DECOMPRESS_LZ4:
        put32(out, 0x184c2102);
        n = (size_t)LZ4_compress_default((char *)elf, (char *)out + 8, ELF_BYTES, (int)room - 8);
        put32(out + 4, (uint32_t)n);
        n += 8;
        break;
    }
    put32(out + n, ELF_BYTES);
    return n + 4;
}

static struct image wrap(const uint8_t *payload, size_t length)
{
    struct image im = {.length = SETUP_BYTES + 16 + length};

    im.bytes = calloc(1, im.length);
    im.bytes[0x1f1] = 1;
    put16(im.bytes + 0x1fe, 0xaa55);
    memcpy(im.bytes + 0x202, "HdrS", 4);
    put16(im.bytes + 0x206, 0x20f);
    put32(im.bytes + 0x248, 16);
    put32(im.bytes + 0x24c, (uint32_t)length);
    memcpy(im.bytes + SETUP_BYTES + 16, payload, length);
    return im;
}

static struct image make_bzimage(enum decompress_format format)
{
    size_t room = 2 * ELF_BYTES;
    uint8_t *payload = malloc(room);
    struct image im = wrap(payload, pack(format, payload, room));

    free(payload);
    return im;
}

/* Open and unpack; the result is compared when both succeed. */
static int unpack(const uint8_t *bytes, size_t length)
{
    struct kernel_image k;
    uint8_t *dst;
    void *arena;
    int rc = kernel_image_open(bytes, length, &k);

    if (rc)
        return rc;
    if (k.elf_bytes > 1 << 20 || k.scratch_bytes > 64 << 20) /* the caller's out of memory */
        return -ENOMEM;
    dst = malloc(k.elf_bytes);
    arena = malloc(k.scratch_bytes);
    decompress_set_arena(arena, k.scratch_bytes);
    rc = kernel_image_decompress(&k, dst, k.elf_bytes);
    if (rc == 0 && (k.elf_bytes != ELF_BYTES || memcmp(dst, elf, ELF_BYTES)))
        rc = 1;
    decompress_set_arena(NULL, 0);
    free(arena);
    free(dst);
    return rc;
}

static const enum decompress_format all[] = {DECOMPRESS_GZIP, DECOMPRESS_XZ, DECOMPRESS_ZSTD,
                                             DECOMPRESS_LZ4};

/* --- tests --- */

static void each_format_unpacks(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        struct image im = make_bzimage(all[i]);
        struct kernel_image k;

        assert_int_equal(kernel_image_open(im.bytes, im.length, &k), 0);
        assert_string_equal(k.format_name, decompress_name(all[i]));
        assert_int_equal(k.elf_bytes, ELF_BYTES);
        assert_int_equal(unpack(im.bytes, im.length), 0);
        free(im.bytes);
    }
}

static void plain_elf_is_taken_as_it_is(void **state)
{
    struct kernel_image k;
    struct image im = wrap(elf, ELF_BYTES);

    (void)state;
    assert_int_equal(kernel_image_open(elf, ELF_BYTES, &k), 0);
    assert_ptr_equal(k.payload, elf);
    assert_int_equal(k.scratch_bytes, 0);
    assert_int_equal(unpack(elf, ELF_BYTES), 0);
    assert_int_equal(unpack(im.bytes, im.length), 0); /* CONFIG_KERNEL_UNCOMPRESSED */
    free(im.bytes);
}

static void arena_and_destination_are_bounds(void **state)
{
    static uint8_t dst[ELF_BYTES];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        struct image im = make_bzimage(all[i]);
        struct kernel_image k;

        kernel_image_open(im.bytes, im.length, &k);
        decompress_set_arena(NULL, 0);
        assert_int_equal(kernel_image_decompress(&k, dst, ELF_BYTES - 1), -ENOSPC);
        if (k.scratch_bytes)
            assert_int_equal(kernel_image_decompress(&k, dst, ELF_BYTES), -ENOMEM);
        free(im.bytes);
    }
}

static void wrong_stated_size_is_an_error(void **state)
{
    static const int deltas[] = {-1, 1, 5000, -5000};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        struct image im = make_bzimage(all[i]);

        for (size_t j = 0; j < ARRAY_SIZE(deltas); j++) {
            put32(im.bytes + im.length - 4, (uint32_t)(ELF_BYTES + deltas[j]));
            assert_int_equal(unpack(im.bytes, im.length), -EIO);
        }
        free(im.bytes);
    }
}

static void truncated_images_are_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        struct image im = make_bzimage(all[i]);

        for (size_t n = 0; n < im.length; n += n < 0x260 ? 1 : im.length / 37) {
            uint8_t *cut = malloc(n ? n : 1);
            int rc;

            memcpy(cut, im.bytes, n);
            rc = unpack(cut, n);
            assert_int_equal(rc, n < 0x250 ? -ENOEXEC : -EINVAL);
            if (n > SETUP_BYTES + 64) { /* and a header that agrees with the cut */
                put32(cut + 0x24c, (uint32_t)(n - SETUP_BYTES - 16));
                put32(cut + n - 4, ELF_BYTES);
                assert_int_equal(unpack(cut, n), -EIO);
            }
            free(cut);
        }
        free(im.bytes);
    }
}

static void corrupted_images_never_unpack_wrongly(void **state)
{
    (void)state;
    srand(7);
    for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
        struct image im = make_bzimage(all[i]);

        for (unsigned n = 0; n < 100; n++) {
            size_t at = SETUP_BYTES + 16 + (size_t)rand() % (im.length - SETUP_BYTES - 16);
            uint8_t was = im.bytes[at];
            int rc;

            im.bytes[at] ^= (uint8_t)(1 + rand() % 255);
            rc = unpack(im.bytes, im.length);
            /* gzip and xz carry a checksum of the whole; the others only must not crash */
            if (all[i] == DECOMPRESS_GZIP || all[i] == DECOMPRESS_XZ)
                assert_true(rc <= 0);
            im.bytes[at] = was;
        }
        assert_int_equal(unpack(im.bytes, im.length), 0);
        free(im.bytes);
    }
}

/* LZ4's decoder is ours: each bound has a block that crosses it. */
static void lz4_bounds(void **state)
{
    static const struct {
        uint8_t block[8];
        uint8_t length;
        int rc;
        size_t produced;
    } cases[] = {
        {{0x10, 'a', 1, 0, 0x10, 'b'}, 6, 0, 6},     /* a, 4 more of it, b */
        {{0x10, 'a', 2, 0, 0x10, 'b'}, 6, -EIO, 0},  /* before the start */
        {{0x10, 'a', 0, 0, 0x10, 'b'}, 6, -EIO, 0},  /* distance 0 */
        {{0x10, 'a', 1}, 3, -EIO, 0},                /* half a distance */
        {{0x20, 'a'}, 2, -EIO, 0},                   /* literals past the end */
        {{0xf0, 255, 255}, 3, -EIO, 0},              /* length past the end */
        {{0x1f, 'a', 1, 0, 0, 0x10, 'b'}, 7, 0, 21}, /* 19 more, then b */
        {{0x1f, 'a', 1, 0, 1, 0x20, 'b', 'c'}, 8, -ENOSPC, 0},
        {{0x1f, 'a', 1, 0, 200, 0x10, 'b'}, 7, -ENOSPC, 0},
        {{0x10, 'a', 1, 0}, 4, -EIO, 0}, /* ends with a match */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        size_t length = 8u + cases[i].length, produced;
        uint8_t *src = malloc(length), *dst = malloc(22);

        put32(src, 0x184c2102);
        put32(src + 4, cases[i].length);
        memcpy(src + 8, cases[i].block, cases[i].length);
        assert_int_equal(decompress(DECOMPRESS_LZ4, src, length, dst, 22, &produced), cases[i].rc);
        assert_int_equal(produced, cases[i].produced);
        free(src);
        free(dst);
    }
}

static void other_files_are_not_kernels(void **state)
{
    struct image im = make_bzimage(DECOMPRESS_GZIP);
    struct kernel_image k;

    (void)state;
    assert_int_equal(kernel_image_open("#!/bin/sh\n", 10, &k), -ENOEXEC);
    put16(im.bytes + 0x206, 0x207); /* before the payload field */
    assert_int_equal(kernel_image_open(im.bytes, im.length, &k), -ENOEXEC);
    put16(im.bytes + 0x206, 0x208);
    assert_int_equal(kernel_image_open(im.bytes, im.length, &k), 0);
    im.bytes[SETUP_BYTES + 16] = 'B'; /* bzip2: not ours */
    assert_int_equal(kernel_image_open(im.bytes, im.length, &k), -ENOEXEC);
    free(im.bytes);
}

static void elf_segments_and_entry(void **state)
{
    struct kernel_elf e;

    (void)state;
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), 0);
    assert_int_equal(e.nr_segments, 3);
    assert_int_equal(e.lowest_paddr, 0x1000000);
    assert_int_equal(e.highest_paddr, 0x3005000);
    assert_int_equal(e.pvh_entry, ENTRY);
    assert_int_equal(e.segments[1].offset, 0xa000);
    assert_int_equal(e.segments[1].file_bytes, 0x100);
    assert_int_equal(e.segments[1].mem_bytes, 0x5000);
}

static void pvh_note_variants(void **state)
{
    struct kernel_elf e;
    uint8_t *section = elf + 0x12000;

    memset(elf + NOTE_AT, 0, 64);
    program_header(3, 4, NOTE_AT, 0, notes(elf + NOTE_AT, 4), 0);
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), 0);
    assert_int_equal(e.pvh_entry, ENTRY);

    put32(elf + NOTE_AT + 24 + 8, 17); /* another note's type: no entry */
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -ENOENT);
    put32(elf + NOTE_AT + 24 + 8, 18);
    put32(elf + NOTE_AT + 24 + 16, 0x1008000); /* past its segment */
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -EINVAL);

    program_header(3, 0, 0, 0, 0, 0); /* in a section only */
    put64(elf + 40, 0x12000);
    put16(elf + 58, 64);
    put16(elf + 60, 1);
    memset(section, 0, 64);
    put32(section + 4, 7);
    put64(section + 24, NOTE_AT);
    put64(section + 32, notes(elf + NOTE_AT, 8));
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), 0);
    assert_int_equal(e.pvh_entry, ENTRY);
    put64(section + 32, ELF_BYTES);
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -EINVAL);
    make_elf(state);
}

static void bad_elf_headers_are_refused(void **state)
{
    struct kernel_elf e;

    program_header(0, 1, 0x2000, 0x1000000, 0x8001, 0x8000); /* file > memory */
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -EINVAL);
    program_header(0, 1, ~0ULL - 4, 0x1000000, 0x8000, 0x8000); /* outside of the file */
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -EINVAL);
    program_header(0, 1, 0x2000, ~0xfffULL, 0x8000, 0x8000); /* wraps */
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -EINVAL);
    make_elf(state);
    put64(elf + 32, ~0ULL);
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -EINVAL);
    make_elf(state);
    put16(elf + 56, 0xffff);
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -EINVAL);
    make_elf(state);
    elf[18] = 3; /* i386 */
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -ENOEXEC);
    make_elf(state);
    for (unsigned i = 0; i < 17; i++) /* too many */
        program_header(i, 1, 0x2000, 0x1000000, 0x100, 0x100);
    put16(elf + 56, 17);
    assert_int_equal(kernel_elf_parse(elf, ELF_BYTES, &e), -E2BIG);
    make_elf(state);
}

static void hostile_elf_stays_in_bounds(void **state)
{
    struct kernel_elf e;

    (void)state;
    srand(11);
    for (unsigned n = 0; n < 20000; n++) {
        size_t length = 64 + (size_t)rand() % (NOTE_AT + 64);
        uint8_t *copy = malloc(length);

        memcpy(copy, elf, length);
        for (unsigned i = 0; i < 6; i++)
            copy[(size_t)rand() % MIN(length, (size_t)300)] = (uint8_t)rand();
        if (length > NOTE_AT)
            copy[NOTE_AT + (size_t)rand() % (length - NOTE_AT)] = (uint8_t)rand();
        kernel_elf_parse(copy, length, &e);
        free(copy);
    }
}

/* The kernel that dom0 runs, when the caller names one. */
static void a_real_kernel(void **state)
{
    const char *path = getenv("TEST_KERNEL");
    FILE *f = path ? fopen(path, "rb") : NULL;
    struct kernel_image k;
    struct kernel_elf e;
    uint8_t *bytes, *dst;
    void *arena;
    size_t length;

    (void)state;
    if (!f)
        skip();
    fseek(f, 0, SEEK_END);
    length = (size_t)ftell(f);
    rewind(f);
    bytes = malloc(length);
    assert_int_equal(fread(bytes, 1, length, f), length);
    fclose(f);
    assert_int_equal(kernel_image_open(bytes, length, &k), 0);
    dst = malloc(k.elf_bytes);
    arena = malloc(k.scratch_bytes);
    decompress_set_arena(arena, k.scratch_bytes);
    assert_int_equal(kernel_image_decompress(&k, dst, k.elf_bytes), 0);
    assert_int_equal(kernel_elf_parse(dst, k.elf_bytes, &e), 0);
    bytes[length / 2] ^= 0x10;
    assert_int_equal(kernel_image_decompress(&k, dst, k.elf_bytes), -EIO);
    assert_int_equal(kernel_image_open(bytes, length / 2, &k), -EINVAL);
    free(arena);
    free(dst);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_format_unpacks),
        cmocka_unit_test(plain_elf_is_taken_as_it_is),
        cmocka_unit_test(arena_and_destination_are_bounds),
        cmocka_unit_test(wrong_stated_size_is_an_error),
        cmocka_unit_test(truncated_images_are_refused),
        cmocka_unit_test(corrupted_images_never_unpack_wrongly),
        cmocka_unit_test(lz4_bounds),
        cmocka_unit_test(other_files_are_not_kernels),
        cmocka_unit_test(elf_segments_and_entry),
        cmocka_unit_test(pvh_note_variants),
        cmocka_unit_test(bad_elf_headers_are_refused),
        cmocka_unit_test(hostile_elf_stays_in_bounds),
        cmocka_unit_test(a_real_kernel),
    };

    return cmocka_run_group_tests(tests, make_elf, NULL);
}
