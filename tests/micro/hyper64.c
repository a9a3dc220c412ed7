/* hyper64.c: hypercalls from 64-bit mode. */
#include "hypercalls.h"
