/* abi.h: the public Xen ABI, from Debian's libxen-dev, as every file of ours includes it. */
#pragma once

#include "core/types.h"

#ifndef __XEN_TOOLS__
#define __XEN_TOOLS__ 1
#endif
#define __XEN_INTERFACE_VERSION__ __XEN_LATEST_INTERFACE_VERSION__

#include <xen/xen.h>
#include <xen/version.h>
#include <xen/features.h>
#include <xen/memory.h>
#include <xen/sched.h>
#include <xen/vcpu.h>
#include <xen/event_channel.h>
#include <xen/grant_table.h>
#include <xen/physdev.h>
#include <xen/platform.h>
#include <xen/domctl.h>
#include <xen/sysctl.h>
#include <xen/hvm/hvm_op.h>
#include <xen/hvm/hvm_vcpu.h>
#include <xen/hvm/params.h>
#include <xen/hvm/save.h>
#include <xen/hvm/dm_op.h>
#include <xen/hvm/ioreq.h>
#include <xen/hvm/e820.h>
#include <xen/arch-x86/cpuid.h>
#include <xen/arch-x86/hvm/start_info.h>

#define XEN_VERSION_MAJOR 4
#define XEN_VERSION_MINOR 17

/* XENMEM_memory_map's records: those of the BIOS's INT 15h, E820h. */
struct e820entry {
    uint64_t addr, size; /* bytes */
    uint32_t type;
} __packed;
