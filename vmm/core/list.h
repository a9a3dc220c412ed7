/* list.h: intrusive doubly linked circular lists. The caller holds the lock that guards the list.
 */
#pragma once

#include "core/types.h"

struct list {
    struct list *next, *prev;
};

#define LIST_INIT(l)                                                                               \
    {                                                                                              \
        &(l), &(l)                                                                                 \
    }

static inline void list_init(struct list *l)
{
    l->next = l->prev = l;
}
static inline bool list_empty(const struct list *l)
{
    return l->next == l;
}
static inline void list_insert(struct list *e, struct list *prev, struct list *next)
{
    e->prev = prev;
    e->next = next;
    prev->next = e;
    next->prev = e;
}
static inline void list_add(struct list *head, struct list *e)
{
    list_insert(e, head, head->next);
}
static inline void list_add_tail(struct list *head, struct list *e)
{
    list_insert(e, head->prev, head);
}
static inline void list_del(struct list *e)
{
    e->prev->next = e->next;
    e->next->prev = e->prev;
    e->next = e->prev = e;
}

#define list_entry(p, t, m) container_of(p, t, m)
#define list_first(h, t, m) list_entry((h)->next, t, m)
#define list_for_each(pos, h, m)                                                                   \
    for (pos = list_entry((h)->next, __typeof__(*pos), m); &pos->m != (h);                         \
         pos = list_entry(pos->m.next, __typeof__(*pos), m))
#define list_for_each_safe(pos, tmp, h, m)                                                         \
    for (pos = list_entry((h)->next, __typeof__(*pos), m),                                         \
        tmp = list_entry(pos->m.next, __typeof__(*pos), m);                                        \
         &pos->m != (h); pos = tmp, tmp = list_entry(tmp->m.next, __typeof__(*tmp), m))
