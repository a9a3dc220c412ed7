# decompress.mk: what the hypervisor's final link needs for boot/decompress.c.
#
# Put $(DECOMPRESS_LIBS) last on the ld command line, after every object (libc_shim.o included: it
# must come before the archives, so that it keeps zstd's legacy decoders out), with --gc-sections.
# The linker script must discard .eh_frame and keep .got and .data.rel.ro* with the data.
# The archives are PIC without thread-local storage, so they link statically at any address.
DECOMPRESS_LIBDIR := /usr/lib/x86_64-linux-gnu
DECOMPRESS_LIBS := $(DECOMPRESS_LIBDIR)/liblzma.a $(DECOMPRESS_LIBDIR)/libz.a \
	$(DECOMPRESS_LIBDIR)/libzstd.a
