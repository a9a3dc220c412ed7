# unit.mk: host unit tests. A test names the hypervisor sources it is linked with in its first line,
# /* sources: vmm/... */, and libraries in its second, /* libs: -l... */ (optional).
UNIT_TESTS  := $(sort $(wildcard tests/unit/test_*.c))
UNIT_BIN    := $(UNIT_TESTS:tests/unit/%.c=build/unit/%)
UNIT_CFLAGS := -std=gnu11 -g -O1 -Wall -Wextra -Werror -Ivmm -Itests/unit -DHOST_TEST \
               -fsanitize=address,undefined -fno-sanitize-recover=undefined
unit_sources = $(shell sed -n '1{s:^/\* *sources\: *::;s: *\*/.*::;p}' $(1))
unit_libs    = $(shell sed -n '2{s:^/\* *libs\: *:LIBS :;s: *\*/.*::;s:^LIBS ::p}' $(1))

.PHONY: unit unit-build
unit-build: $(UNIT_BIN)
unit: unit-build
	@fail=0; for t in $(UNIT_BIN); do echo "== $$t"; timeout 300 $$t || fail=1; done; exit $$fail

define UNIT_RULE
build/unit/$(1): tests/unit/$(1).c $$(wildcard tests/unit/*.h vmm/*/*.h) $(call unit_sources,tests/unit/$(1).c)
	@mkdir -p $$(@D)
	@echo "  HOSTCC $$@"; gcc $$(UNIT_CFLAGS) $$(filter %.c,$$^) -o $$@ -lcmocka $(call unit_libs,tests/unit/$(1).c)
endef
$(foreach t,$(UNIT_TESTS:tests/unit/%.c=%),$(eval $(call UNIT_RULE,$(t))))
