#!/bin/sh
# symbols.sh: from `nm -n` on standard input, NASM source of the sorted symbol table that
# backtraces read: 32-bit offsets from the image's base, name offsets, and the names.
awk '
$2 ~ /^[tT]$/ && $1 ~ /^ffffffff8/ && $3 !~ /^\.|\$/ {
    n++; addr[n] = substr($1, 9); name[n] = $3
}
END {
    print "section .note.GNU-stack noalloc noexec nowrite progbits"
    print "section .symtab_blob"
    print "dd " n
    for (i = 1; i <= n; i++) print "dd 0x" addr[i] " - 0x80000000, n" i " - names"
    print "names:"
    for (i = 1; i <= n; i++) print "n" i ": db \"" name[i] "\", 0"
}'
