// Does the same random operations in two directories, and compares what comes of them: results, errors, and the trees.
//   fsdiff DIR-A DIR-B SECONDS SEED [no-blocks]
// A is the one that is right: a local file system. Both have to be mounted with noatime. Each operation has a caller: user, groups, umask and capabilities. The names are few, so that
// operations meet. An episode has EPISODE operations in empty directories, and is made of its seed alone: SEED is that of the first one, and each has the next number.
// With no-blocks it does not compare whether files have blocks, which depends on when a cache is written back. Prints NAME=VALUE lines. At the first difference it looks for the fewest operations that make one, prints them, and ends with status 1.
#include "fsdiff.h"
#include <ftw.h>
#include <linux/capability.h>

struct side sides[2];
int descriptors;
int has_blocks;
struct result results[2];
char message[3 * 4096];

static int is_told;                 // whether this is no replay
static unsigned long operations, successes;
static double deadline;             // of what is no replay: an episode that has no more time ends with its last check

// Words for an operation.
static const char *short_path(const char *path)
{
    static char texts[4][64];
    static int which;
    char *text = texts[which = (which + 1) % 4];
    if (strlen(path) < 50)
        snprintf(text, 64, "\"%s\"", path);
    else
        snprintf(text, 64, "\"%.10s...%s\" of %zu bytes", path, path + strlen(path) - 2, strlen(path));
    return text;
}

static const char *start_of(int at)
{
    static char texts[2][16];
    static int which;
    char *text = texts[which = (which + 1) % 2];
    snprintf(text, 16, at < 0 ? "" : "slot %d ", at);
    return text;
}

static void print_open_flags(int flags)
{
    static const struct { int flag; const char *name; } names[] = {
        {O_TMPFILE, "O_TMPFILE"}, {O_PATH, "O_PATH"}, {O_CREAT, "O_CREAT"}, {O_EXCL, "O_EXCL"}, {O_TRUNC, "O_TRUNC"}, {O_APPEND, "O_APPEND"}, {O_NOFOLLOW, "O_NOFOLLOW"}, {O_DIRECTORY, "O_DIRECTORY"},
        {O_SYNC, "O_SYNC"}, {O_NOATIME, "O_NOATIME"},
    };
    printf("%s", (flags & O_ACCMODE) == O_RDONLY ? "O_RDONLY" : (flags & O_ACCMODE) == O_WRONLY ? "O_WRONLY" : "O_RDWR");
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((flags & names[i].flag) == names[i].flag && !(names[i].flag == O_DIRECTORY && (flags & O_TMPFILE) == O_TMPFILE))
            printf("|%s", names[i].name);
}

static void print_time(const struct timespec *time)
{
    if (time->tv_nsec == UTIME_NOW || time->tv_nsec == UTIME_OMIT)
        printf(time->tv_nsec == UTIME_NOW ? " now" : " omit");
    else
        printf(" %ld.%09ld", (long)time->tv_sec, time->tv_nsec);
}

static void print_operation(int number, const struct operation *o)
{
    const char *at = start_of(o->at), *at2 = start_of(o->at2), *path = short_path(o->path), *path2 = short_path(o->path2);
    printf("%4d ", number);
    if (o->kind == CHECK) {
        printf("check%s\n", o->flags ? " after a sync" : "");
        return;
    }
    switch (o->kind) {
    case OPEN: printf("slot %d = open %s%s ", o->slot, at, path), print_open_flags(o->flags), printf(" %04o", o->mode); break;
    case CLOSE: printf("close slot %d", o->slot); break;
    case READ: printf("read slot %d, %zu bytes", o->slot, o->length); break;
    case PREAD: printf("pread slot %d, %zu bytes at %ld", o->slot, o->length, (long)o->offset); break;
    case WRITE: printf("write slot %d, %zu bytes '%c'", o->slot, o->length, o->fill); break;
    case PWRITE: printf("pwrite slot %d, %zu bytes '%c' at %ld", o->slot, o->length, o->fill, (long)o->offset); break;
    case FTRUNCATE: printf("ftruncate slot %d to %ld", o->slot, (long)o->offset); break;
    case TRUNCATE: printf("truncate %s to %ld", path, (long)o->offset); break;
    case FALLOCATE: printf("fallocate slot %d, mode %d, %zu bytes at %ld", o->slot, o->flags, o->length, (long)o->offset); break;
    case COPY: printf("copy_file_range slot %d at %ld, to slot %d at %ld, %zu bytes", o->slot, (long)o->offset, o->slot2, (long)o->offset2, o->length); break;
    case SYNC: printf("fsync slot %d", o->slot); break;
    case MKDIR: printf("mkdir %s%s %04o", at, path, o->mode); break;
    case MKNOD: printf("mknod %s%s %06o %lx", at, path, o->mode, (long)o->device); break;
    case SYMLINK: printf("symlink %s to %s%s", path2, at, path); break;
    case LINK: printf("link %s%s to %s%s%s", at, path, at2, path2, o->flags ? " following" : ""); break;
    case LINK_OPEN: printf("link slot %d to %s%s by %s", o->slot, at2, path2, o->flags == AT_EMPTY_PATH ? "AT_EMPTY_PATH" : "/proc"); break;
    case RENAME: printf("rename %s%s to %s%s, flags %d", at, path, at2, path2, o->flags); break;
    case UNLINK: printf("unlink %s%s", at, path); break;
    case RMDIR: printf("rmdir %s%s", at, path); break;
    case CHMOD: printf("chmod %s%s %04o", at, path, o->mode); break;
    case FCHMOD: printf("fchmod slot %d %04o", o->slot, o->mode); break;
    case CHOWN: printf("chown %s%s %d:%d, flags %x", at, o->flags == AT_EMPTY_PATH ? "" : path, o->user, o->group, o->flags); break;
    case FCHOWN: printf("fchown slot %d %d:%d", o->slot, o->user, o->group); break;
    case UTIMES: printf("utimensat %s%s", at, path), print_time(&o->times[0]), print_time(&o->times[1]), printf("%s", o->flags ? " of the link" : ""); break;
    case FUTIMES: printf("futimens slot %d", o->slot), print_time(&o->times[0]), print_time(&o->times[1]); break;
    case ACCESS: printf("access %s%s %d, flags %x", at, path, o->flags2, o->flags); break;
    case SETXATTR: case FSETXATTR:
        if (o->kind == SETXATTR)
            printf("setxattr %s", path);
        else
            printf("fsetxattr slot %d", o->slot);
        printf(" %s ", o->name);
        for (size_t i = 0; i < o->length; i++)
            printf("%02x", o->value[i]);
        printf(" flags %d%s", o->flags2, o->flags ? " of the link" : "");
        break;
    case GETXATTR: printf("getxattr %s %s, room %zu%s", path, o->name, o->length, o->flags ? " of the link" : ""); break;
    case FGETXATTR: printf("fgetxattr slot %d %s, room %zu", o->slot, o->name, o->length); break;
    case LISTXATTR: printf("listxattr %s, room %zu%s", path, o->length, o->flags ? " of the link" : ""); break;
    case REMOVEXATTR: printf("removexattr %s %s%s", path, o->name, o->flags ? " of the link" : ""); break;
    case STAT: printf("stat %s%s%s", at, path, o->flags ? " of the link" : ""); break;
    case FSTAT: printf("fstat slot %d", o->slot); break;
    case READLINK: printf("readlink %s%s, room %zu", at, path, o->length); break;
    case READDIR: printf("readdir slot %d", o->slot); break;
    case FLOCK: printf("flock slot %d %d", o->slot, o->flags); break;
    case LOCK: printf("fcntl slot %d, command %d, type %d, %zu bytes at %ld", o->slot, o->flags2, o->flags, o->length, (long)o->offset2); break;
    case CHECK: break;
    }
    const struct caller *c = &o->caller;
    printf(" [%u:%u", c->user, c->group);
    for (int i = 0; i < c->count; i++)
        printf(",%u", c->groups[i]);
    printf(" umask %03o capabilities %lx]", c->umask, (unsigned long)c->capabilities);
    printf(" = %ld%s%s\n", results[0].value, results[0].error ? " " : "", results[0].error ? strerrorname_np(results[0].error) : "");
}

// The same for what changes nothing in the directory.
static int is_known(const struct operation *o)
{
    // For system.* the daemon has to check itself whose file it is, and does so first.
    if ((o->kind == SETXATTR || o->kind == FSETXATTR || o->kind == REMOVEXATTR) && strcmp(o->name, "system.other") == 0)
        return results[0].error == EOPNOTSUPP && results[1].error == EPERM;
    // Who sees the names of trusted.* depends on CAP_SYS_ADMIN, of which FUSE does not tell: on the share it is root.
    if (o->kind == LISTXATTR && (o->caller.user == 0) != ((o->caller.capabilities >> CAP_SYS_ADMIN) & 1))
        return 1;
    return 0;
}

static int is_same(const struct operation *o)
{
    const struct result *a = &results[0], *b = &results[1];
    if (a->value == b->value && a->error == b->error && a->size == b->size && memcmp(a->data, b->data, a->size) == 0)
        return 1;
    if (is_known(o))
        return 1;
    int length = snprintf(message, sizeof message, "the results differ\n");
    for (int i = 0; i < 2; i++)
        length += snprintf(message + length, sizeof message - length, "  %s: %ld %s %.200s\n", sides[i].name, results[i].value, results[i].error ? strerrorname_np(results[i].error) : "",
            results[i].size ? results[i].data : "");
    return 0;
}

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type;
    return place->level == 0 ? 0 : remove(path);
}

static void begin(void)
{
    for (int i = 0; i < 2; i++) {
        struct side *side = &sides[i];
        for (int slot = 0; slot < SLOTS; slot++) {
            if (side->slots[slot] >= 0)
                close(side->slots[slot]);
            side->slots[slot] = -1;
        }
        if (side->root >= 0)
            close(side->root);
        if (fchdir(side->top) < 0 || chroot(".") < 0 || nftw(".", remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) != 0)
            fail("cannot empty %s", side->name);
        if (mkdir("top", 0777) < 0 || (side->root = open("top", O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
            fail("mkdir in %s", side->name);
        side->count_before = 0;
    }
}

// Returns the number of operations after which there was a difference, or 0. Those that are left out have no kind.
static int episode(const struct operation *list, int count, const char *left_out)
{
    begin();
    for (int i = 0; i < count; i++) {
        if (left_out ? left_out[i] : i < count - 1 && now() > deadline)
            continue;
        const struct operation *o = &list[i];
        int is_good;
        if (o->kind == CHECK) {
            is_good = is_same_tree(o->flags != 0);
        } else {
            for (int side = 0; side < 2; side++)
                perform(&sides[side], o, &results[side]);
            operations += left_out == NULL;
            successes += left_out == NULL && results[0].error == 0;
            is_good = is_same(o);
        }
        if (is_told)
            print_operation(i, o);
        if (!is_good)
            return i + 1;
    }
    return 0;
}

static void shrink(const struct operation *list, int count)
{
    char *left_out = calloc(count, 1), *tried = malloc(count);
    for (double end = now() + SHRINK_SECONDS; now() < end;) {
        int has_shrunk = 0;
        for (int size = count / 2; size > 0 && now() < end; size /= 2) {
            for (int start = count - size; start > -size && now() < end; start -= size) {
                memcpy(tried, left_out, count);
                int new = 0;
                for (int i = start < 0 ? 0 : start; i < start + size; i++)
                    new += !tried[i], tried[i] = 1;
                int end_of = new ? episode(list, count, tried) : 0;
                if (end_of == 0)
                    continue;
                memcpy(left_out, tried, count);
                for (int i = end_of; i < count; i++)
                    left_out[i] = 1;
                has_shrunk = 1;
            }
        }
        if (!has_shrunk)
            break;
    }
    int kept = 0, left = 0;
    for (int i = 0; i < count; i++)
        kept += !left_out[i];
    for (int i = 0; i < count && kept - left > LONGEST; i++)
        left += !left_out[i];
    printf("%d operations make a difference%s:\n", kept, left ? ", and these are the last of them" : "");
    is_told = 1;
    if (!episode(list, count, left_out))
        printf("... but not once more; that was: ");
    printf("%s", message);
}

static void run(int seconds, uint64_t seed)
{
    static struct operation list[EPISODE + 1];
    unsigned long episodes = 0;
    deadline = now() + seconds;
    for (; now() < deadline; seed++, episodes++) {
        for (int i = 0; i < EPISODE; i++)
            list[i] = random_operation(seed, i);
        list[EPISODE] = (struct operation){.kind = CHECK, .flags = 1};
        int count = episode(list, EPISODE + 1, NULL);
        if (count) {
            printf("seed %lu: after %d operations %s", (unsigned long)seed, count, message);
            shrink(list, count);
            printf("fsdiff: a difference (seed %lu)\n", (unsigned long)seed);
            exit(1);
        }
        for (int i = 0; i < EPISODE; i++)
            free(list[i].path), free(list[i].path2);
    }
    printf("episodes=%lu\noperations=%lu\nsucceeded=%lu\n", episodes, operations, successes);
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    has_blocks = count == 5;
    if (!has_blocks && (count != 6 || strcmp(arguments[5], "no-blocks") != 0)) {
        fprintf(stderr, "usage: fsdiff DIR-A DIR-B SECONDS SEED [no-blocks]\n");
        return 2;
    }
    umask(0);
    descriptors = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (int i = 0; i < 2; i++) {
        sides[i].name = i == 0 ? "A" : "B";
        sides[i].root = -1;
        memset(sides[i].slots, -1, sizeof sides[i].slots);
        if ((sides[i].top = open(arguments[1 + i], O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
            fail("%s", arguments[1 + i]);
    }
    run(atoi(arguments[3]), strtoull(arguments[4], NULL, 0));
    return 0;
}
