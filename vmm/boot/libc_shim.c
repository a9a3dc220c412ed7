/* libc_shim.c: what Debian's static liblzma, libz and libzstd ask of a C library, and no more.
 *
 * The decoders get their memory through their allocator hooks (decompress.c), so malloc here only
 * has to exist and to fail. The decoders of zstd's formats before 1.0 are 80 KiB that no kernel
 * image needs: defining their entry points here keeps them out of the link, and decompress.c never
 * lets the library reach one. Not part of host tests, which have a real C library.
 */
#ifndef HOST_TEST

#include "core/print.h"
#include "core/types.h"

void *malloc(size_t bytes);
void *calloc(size_t n, size_t bytes);
void free(void *p);
void __stack_chk_fail(void);

void *malloc(size_t bytes)
{
    (void)bytes;
    return NULL;
}

void *calloc(size_t n, size_t bytes)
{
    (void)n;
    (void)bytes;
    return NULL;
}

void free(void *p)
{
    (void)p;
}

void __stack_chk_fail(void)
{
    panic("stack overrun in a decompression library");
}

#define ABSENT(name)                                                                               \
    void name(void);                                                                               \
    void name(void)                                                                                \
    {                                                                                              \
        panic(#name " is not linked in");                                                          \
    }

#define ABSENT_ZSTD(version)                                                                       \
    ABSENT(ZSTD##version##_createDCtx)                                                             \
    ABSENT(ZSTD##version##_freeDCtx)                                                               \
    ABSENT(ZSTD##version##_decompress_usingDict)                                                   \
    ABSENT(ZSTD##version##_findFrameSizeInfoLegacy)                                                \
    ABSENT(ZSTD##version##_getFrameParams)                                                         \
    ABSENT(ZBUFF##version##_createDCtx)                                                            \
    ABSENT(ZBUFF##version##_freeDCtx)                                                              \
    ABSENT(ZBUFF##version##_decompressInitDictionary)                                              \
    ABSENT(ZBUFF##version##_decompressContinue)

ABSENT_ZSTD(v05)
ABSENT_ZSTD(v06)
ABSENT_ZSTD(v07)

#endif
