/* tree.c: an intrusive AVL tree (Adelson-Velsky and Landis, 1962) with its first node at hand.
 *
 * Heights of siblings differ by one at most, so each operation touches O(log n) nodes, in the worst
 * case too: a lock is held no longer for an unlucky sequence. The caller holds the lock that guards
 * the tree.
 */
#include "core/runq.h"

static bool before(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b) < 0;
}

static int height(const struct tree_node *n)
{
    return n ? n->height : 0;
}

static void set_height(struct tree_node *n)
{
    n->height = 1 + MAX(height(n->left), height(n->right));
}

/* Put `with` where n hangs. */
static void replace(struct tree *t, struct tree_node *n, struct tree_node *with)
{
    if (!n->parent)
        t->root = with;
    else if (n->parent->left == n)
        n->parent->left = with;
    else
        n->parent->right = with;
    if (with)
        with->parent = n->parent;
}

static struct tree_node *rotate_left(struct tree *t, struct tree_node *n)
{
    struct tree_node *r = n->right;
    replace(t, n, r);
    n->right = r->left;
    if (r->left)
        r->left->parent = n;
    r->left = n;
    n->parent = r;
    set_height(n);
    set_height(r);
    return r;
}

static struct tree_node *rotate_right(struct tree *t, struct tree_node *n)
{
    struct tree_node *l = n->left;
    replace(t, n, l);
    n->left = l->right;
    if (l->right)
        l->right->parent = n;
    l->right = n;
    n->parent = l;
    set_height(n);
    set_height(l);
    return l;
}

/* From n up: heights, and rotations where two siblings differ by two. */
static unsigned rebalance(struct tree *t, struct tree_node *n)
{
    unsigned steps = 0;
    for (; n; n = n->parent, steps++) {
        int old = n->height, tilt = height(n->left) - height(n->right);
        if (tilt > 1) {
            if (height(n->left->left) < height(n->left->right))
                rotate_left(t, n->left);
            n = rotate_right(t, n);
        } else if (tilt < -1) {
            if (height(n->right->right) < height(n->right->left))
                rotate_right(t, n->right);
            n = rotate_left(t, n);
        } else {
            set_height(n);
        }
        if (n->height == old)
            break;
    }
    return steps;
}

unsigned tree_insert(struct tree *t, struct tree_node *n)
{
    struct tree_node **at = &t->root, *parent = NULL;
    unsigned steps = 1;
    bool first = true;
    if (likely(!t->root)) {
        n->left = n->right = n->parent = NULL;
        tree_plant(t, n);
        return steps;
    }
    while (*at) {
        parent = *at;
        bool left = before(n->key, parent->key);
        first &= left;
        at = left ? &parent->left : &parent->right;
        steps++;
    }
    n->left = n->right = NULL;
    n->parent = parent;
    n->height = 1;
    *at = n;
    if (first)
        t->first = n;
    return steps + rebalance(t, parent);
}

struct tree_node *tree_next(const struct tree_node *n)
{
    if (n->right) {
        struct tree_node *next = n->right;
        while (next->left)
            next = next->left;
        return next;
    }
    while (n->parent && n->parent->right == n)
        n = n->parent;
    return n->parent;
}

unsigned tree_remove(struct tree *t, struct tree_node *n)
{
    struct tree_node *from; /* the lowest node whose height may have changed */
    unsigned steps = 1;
    if (likely(tree_is_alone(t, n))) {
        t->root = t->first = NULL;
        return steps;
    }
    if (t->first == n)
        t->first = tree_next(n);
    if (n->left && n->right) { /* its successor takes its place */
        struct tree_node *next = n->right;
        for (; next->left; steps++)
            next = next->left;
        from = next;
        if (next->parent != n) {
            from = next->parent;
            replace(t, next, next->right);
            next->right = n->right;
            next->right->parent = next;
        }
        replace(t, n, next);
        next->left = n->left;
        next->left->parent = next;
        next->height = n->height;
    } else {
        from = n->parent;
        replace(t, n, n->left ? n->left : n->right);
    }
    n->left = n->right = n->parent = NULL;
    return steps + rebalance(t, from);
}
