/* hyper32.c: hypercalls from 32-bit protected mode, with 32-bit layouts. */
#include "hypercalls.h"
