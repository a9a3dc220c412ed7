/* ioreq.h: ioreq servers as vmm/platform's own files see them; the world sees platform.h.
 *
 * An ioreq server is an emulator's end of a domain's device accesses: which addresses it claims,
 * the page of synchronous requests (a slot a vCPU), the ring of posted writes, and the event
 * channels that ring its bell. <xen/hvm/dm_op.h> is the tools' view of the same.
 */
#pragma once

#include "platform/platform.h"

#define IOREQ_SERVERS_MAX 8

/* Life cycle, for dm_op. d is not the caller's own domain. All may take d's locks, pause d and
 * allocate; none is called with a lock held. -ENOENT: no such server. */

/* Create a server for the emulator running in domain `emulator`; bufmode is
 * HVM_IOREQSRV_BUFIOREQ_*. Disabled at first. -EINVAL, -ENOSPC (too many servers), -ENOMEM, or
 * evtchn's error. */
int ioreq_server_create(struct domain *d, domid_t emulator, uint8_t bufmode, ioservid_t *id);
/* Vcpus that wait for it go on as if nobody claimed the access. */
int ioreq_server_destroy(struct domain *d, ioservid_t id);
/* What get_ioreq_server_info tells. with_gfns: put the pages at gfns of d (the legacy way of
 * mapping them); -ENOSPC when the tools set no gfns aside, -EBUSY while the server is enabled. */
int ioreq_server_info(struct domain *d, ioservid_t id, bool with_gfns, evtchn_port_t *bufioreq_port,
                      gfn_t *ioreq_gfn, gfn_t *bufioreq_gfn);
/* Claim or give up [first, last] of kind XEN_DMOP_IO_RANGE_*. Errors of io_ranges_add, _remove. */
int ioreq_server_range(struct domain *d, ioservid_t id, uint32_t kind, uint64_t first,
                       uint64_t last, bool add);
int ioreq_server_enable(struct domain *d, ioservid_t id, bool enable);
/* Writes to P2M_IOREQ_SERVER pages go to this server; flags 0 ends it. -EINVAL, -EBUSY. */
int ioreq_server_mem_type(struct domain *d, ioservid_t id, uint32_t flags);

/* ---- vCPU side: v == current ------------------------------------------------------------------
 */
/* ioreq_send for a write to a P2M_IOREQ_SERVER page: IOREQ_NO_SERVER means it is plain RAM now. */
enum ioreq_result ioreq_send_mem_type(struct vcpu *v, ioreq_t *p);
/* A read of all 4 bytes at 0xCF8. */
uint32_t ioreq_cf8_read(struct vcpu *v);
