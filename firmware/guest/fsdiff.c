// Does the same random operations in two directories, and compares what comes of them: results, errors, and the trees.
//   fsdiff DIR-A DIR-B SECONDS SEED [no-blocks]
// A is the one that is right: a local file system. Both have to be mounted with noatime. Each operation has a caller: user, groups, umask and capabilities. The names are few, so that
// operations meet. An episode has EPISODE operations in empty directories, and is made of its seed alone: SEED is that of the first one, and each has the next number.
// With no-blocks it does not compare whether files have blocks, which depends on when a cache is written back. Prints NAME=VALUE lines. At the first difference it looks for the fewest operations that make one, prints them, and ends with status 1.
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <grp.h>

#define EPISODE 160
#define SLOTS 6             // files that are open
#define MAX_DATA 20000      // bytes that an operation gives
#define MAX_LENGTH 9000     // of a read or a write
#define MAX_OFFSET 70000
#define GRANULARITY 12      // ms after which a time is another one, on the host, too
#define LONGEST 30          // operations that are printed
#define SHRINK_SECONDS 60
#define MAX_FILES 4096

enum kind {
    OPEN, CLOSE, READ, PREAD, WRITE, PWRITE, FTRUNCATE, TRUNCATE, FALLOCATE, COPY, SYNC, MKDIR, MKNOD, SYMLINK, LINK, LINK_OPEN, RENAME, UNLINK, RMDIR, CHMOD, FCHMOD, CHOWN, FCHOWN, UTIMES,
    FUTIMES, ACCESS, SETXATTR, FSETXATTR, GETXATTR, FGETXATTR, LISTXATTR, REMOVEXATTR, STAT, FSTAT, READLINK, READDIR, FLOCK, LOCK, CHECK
};

struct caller {
    uid_t user;
    gid_t group, groups[3];
    int count;          // of groups
    mode_t umask;
    uint64_t capabilities;
};

struct operation {
    enum kind kind;
    struct caller caller;
    int at, at2;            // slots of directories that paths start at, or -1
    int slot, slot2;
    char *path, *path2;
    int flags, flags2;
    mode_t mode;
    dev_t device;
    uid_t user;
    gid_t group;
    off_t offset, offset2;
    size_t length;
    struct timespec times[2];
    const char *name;       // of an attribute
    unsigned char value[64];
    unsigned char fill;     // of what is written
};

struct result {
    long value;
    int error;
    size_t size;
    char data[MAX_DATA];
};

struct entry {              // a file as it was at the last check
    ino_t number;
    struct timespec changed, modified;
};

struct side {
    const char *name;
    int top;                // the directory given
    int root;               // the episode's, in it
    int slots[SLOTS];
    struct entry entries[MAX_FILES], before[MAX_FILES];
    int count, count_before;
    char *tree;             // what the last check has found, a line for each file
    size_t size, room;
};

static struct side sides[2];
static int descriptors;             // /proc/self/fd
static int has_blocks;              // whether they are compared
static int is_told;                 // whether this is no replay
static unsigned long operations, successes;
static double deadline;             // of what is no replay: an episode that has no more time ends with its last check
static char message[3 * 4096];     // the difference
static struct result results[2];

static uint64_t state;

static uint64_t next(void) { return next_random(&state); }

static unsigned below(unsigned limit) { return (next() >> 16) % limit; }

static int chance(unsigned percent) { return below(100) < percent; }

#define ANY(array) ((array)[below(sizeof(array) / sizeof((array)[0]))])

// What operations are made of.
static const char *const inner_names[] = {"a", "b", "c", "a", "b", "s"};
static const char *const leaf_names[] = {"x", "y", "x", "y", "a", "b", "c", "s"};
static const char *const targets[] = {"a", "b", "a/x", "../x", "../b", "/a", "/b/y", ".", "..", "s", "x", "y", "/", "none", "/s/s"};
static const mode_t modes[] = {0, 0400, 0444, 0600, 0644, 0664, 0666, 0640, 0700, 0711, 0755, 0775, 0777, 0777, 0777, 0750, 01777, 01777, 02755, 02775, 02777, 02770, 04755, 06755, 04777, 06777, 02644, 02666, 06666, 03777, 07777, 0311, 0555};
static const mode_t masks[] = {0, 0, 022, 022, 002, 027, 077};
static const uid_t users[] = {0, 0, 1000, 1000, 1001};
static const gid_t groups[] = {0, 1000, 2000};
static const char *const attributes[] = {
    "user.a", "user.a", "user.b", "trusted.a", "security.capability", "security.capability", "system.posix_acl_access", "system.posix_acl_access", "system.posix_acl_default",
    "system.posix_acl_default", "user.", "system.other", "none", "",
};
static const struct timespec moments[] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}, {1000, 5}, {2000, 999999999}, {-5, 7}, {3000000000, 0}, {7000000000, 1}, {12, 1000000000}};
static const int access_flags[] = {O_RDONLY, O_WRONLY, O_RDWR, O_RDWR};

static char *random_path(void)
{
    char text[4200] = "";
    unsigned what = below(100);
    if (what < 3)
        return strdup(".");
    if (what < 4)
        return strdup(below(2) ? "" : "/");
    if (what < 6) { // a path or a name that is as long as it may be, or longer
        const char *name = ANY(leaf_names);
        size_t length = what == 4 ? 4095 + below(2) : 255 + below(2);
        memset(text, what == 4 ? '/' : 'n', length);
        text[length] = 0;
        if (what == 4)
            memcpy(text, "./", 2), text[length - 1] = *name;
        return strdup(text);
    }
    if (what < 9)
        strcat(text, "/");
    for (unsigned depth = below(100); depth >= 50; depth = depth < 88 ? 0 : below(100)) {
        strcat(text, ANY(inner_names));
        strcat(text, chance(3) ? "/../" : chance(2) ? "//" : "/");
    }
    strcat(text, ANY(leaf_names));
    if (chance(3))
        strcat(text, chance(30) ? "/." : chance(30) ? "/.." : "/");
    return strdup(text);
}

static struct caller random_caller(void)
{
    static const int single[] = {
        CAP_CHOWN, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH, CAP_FOWNER, CAP_FSETID, CAP_MKNOD, CAP_SETFCAP, CAP_SYS_ADMIN,
    };
    struct caller caller = {.user = ANY(users), .group = ANY(groups), .umask = ANY(masks), .count = below(4)};
    for (int i = 0; i < caller.count; i++)
        caller.groups[i] = ANY(groups);
    if (caller.user == 0)
        caller.capabilities = chance(80) ? UINT64_MAX : 0;
    if (chance(caller.user == 0 ? 25 : 12))
        caller.capabilities ^= 1ULL << ANY(single);
    return caller;
}

static void add(unsigned char **end, const void *value, size_t size) { memcpy(*end, value, size), *end += size; }

static void add_acl(unsigned char **end, uint16_t tag, uint32_t id)
{
    uint16_t permissions = below(8);
    add(end, &tag, 2), add(end, &permissions, 2), add(end, &id, 4);
}

// Returns the length. linux/posix_acl_xattr.h and linux/capability.h say what is in it.
static size_t random_value(const char *name, unsigned char *value)
{
    unsigned char *end = value;
    if (strncmp(name, "system.posix", 12) == 0) {
        uint32_t version = chance(97) ? 2 : 1;
        add(&end, &version, 4);
        if (chance(5))
            return end - value; // none
        int user = chance(50), group = chance(50);
        add_acl(&end, 1, -1);
        if (user)
            add_acl(&end, 2, ANY(users));
        add_acl(&end, 4, -1);
        if (group)
            add_acl(&end, 8, ANY(groups));
        if (user || group ? chance(95) : chance(30))
            add_acl(&end, 0x10, -1);
        if (chance(97))
            add_acl(&end, 0x20, -1);
        return end - value;
    }
    if (strcmp(name, "security.capability") == 0) {
        uint32_t words[] = {chance(70) ? 0x02000001 : chance(50) ? 0x03000001 : 0x01000001, 1 << below(20), 0, 0, 0, 0};
        add(&end, words, chance(95) ? (words[0] >> 24 == 2 ? 20 : words[0] >> 24 == 3 ? 24 : 12) : below(25));
        return end - value;
    }
    size_t length = below(4) ? below(64) : 0;
    for (size_t i = 0; i < length; i++)
        value[i] = next();
    return length;
}

static int random_open_flags(void)
{
    int flags = ANY(access_flags);
    unsigned what = below(100);
    if (what < 6)
        return O_TMPFILE | (what < 5 ? O_RDWR : O_RDONLY) | (chance(20) ? O_EXCL : 0);
    if (what < 14)
        return O_PATH | (chance(50) ? O_NOFOLLOW : 0) | (chance(50) ? O_DIRECTORY : 0);
    if (what < 26)
        return O_RDONLY | O_DIRECTORY | (chance(20) ? O_NOFOLLOW : 0);
    return flags | (chance(50) ? O_CREAT : 0) | (chance(15) ? O_EXCL : 0) | (chance(20) ? O_TRUNC : 0) | (chance(20) ? O_APPEND : 0) | (chance(15) ? O_NOFOLLOW : 0)
        | (chance(4) ? O_DIRECTORY : 0) | (chance(4) ? O_SYNC : 0) | (chance(4) ? O_NOATIME : 0);
}

static enum kind random_kind(void)
{
    static const unsigned char weights[] = {
        [OPEN] = 16, [CLOSE] = 2, [READ] = 2, [PREAD] = 3, [WRITE] = 5, [PWRITE] = 5, [FTRUNCATE] = 3, [TRUNCATE] = 4, [FALLOCATE] = 4, [COPY] = 3, [SYNC] = 1, [MKDIR] = 7, [MKNOD] = 4,
        [SYMLINK] = 4, [LINK] = 4, [LINK_OPEN] = 3, [RENAME] = 9, [UNLINK] = 3, [RMDIR] = 2, [CHMOD] = 8, [FCHMOD] = 2, [CHOWN] = 8, [FCHOWN] = 2, [UTIMES] = 4, [FUTIMES] = 1, [ACCESS] = 5,
        [SETXATTR] = 9, [FSETXATTR] = 2, [GETXATTR] = 2, [FGETXATTR] = 1, [LISTXATTR] = 2, [REMOVEXATTR] = 3, [STAT] = 4, [FSTAT] = 2, [READLINK] = 1, [READDIR] = 3, [FLOCK] = 2, [LOCK] = 2,
        [CHECK] = 22,
    };
    static unsigned total;
    if (total == 0)
        for (size_t i = 0; i < sizeof weights; i++)
            total += weights[i];
    unsigned rest = below(total);
    int kind = 0;
    while (rest >= weights[kind])
        rest -= weights[kind++];
    return kind;
}

// The operation of that number in an episode: it does not depend on those before, so that they can be left out.
static struct operation random_operation(uint64_t seed, int number)
{
    static const uid_t some_users[] = {0, 1000, 1001, -1};
    static const gid_t some_groups[] = {0, 1000, 2000, -1};
    static const off_t huge[] = {-1, INT64_MAX, 1LL << 45, 1LL << 62};
    // Linux's FUSE has no COLLAPSE_RANGE and INSERT_RANGE.
    static const int allocations[] = {0, FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE, FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE};
    static const unsigned renames[] = {0, 0, 0, 0, 1, 2, 2, 4, 4, 3, 6, 8};     // RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT
    static const char *const made[] = {"a", "b", "c", "a/a", "b/c", "x", "a/x", "b/y", "a/a/z", "s"};
    enum { MADE = sizeof made / sizeof *made };
    state = (seed * 1000003 + number) * 0x9E3779B97F4A7C15ULL + 1;
    for (int i = 0; i < 4; i++)
        next();
    struct operation o = {.kind = random_kind(), .caller = random_caller(), .at = chance(10) ? (int)below(SLOTS) : -1, .at2 = chance(10) ? (int)below(SLOTS) : -1, .slot = below(SLOTS), .slot2 = below(SLOTS)};
    o.path = random_path(), o.path2 = random_path();
    o.mode = ANY(modes);
    if (number < MADE) { // something to work with
        o.kind = number < 5 ? MKDIR : number < 9 ? OPEN : SYMLINK;
        o.caller.umask = 0;
        o.at = -1;
        o.mode |= 0777;
        free(o.path), o.path = strdup(made[number]);
    }
    o.user = ANY(some_users), o.group = ANY(some_groups);
    // FUSE does not tell of a change of owner that changes neither.
    if (o.user == (uid_t)-1 && o.group == (gid_t)-1)
        o.user = 1000;
    o.offset = chance(3) ? ANY(huge) : chance(60) ? below(9000) : below(MAX_OFFSET);
    o.offset2 = below(MAX_OFFSET);
    o.length = chance(10) ? 0 : chance(50) ? below(64) : below(MAX_LENGTH);
    o.times[0] = ANY(moments), o.times[1] = ANY(moments);
    if (chance(25))
        o.times[0] = o.times[1] = moments[0];
    o.name = ANY(attributes);
    o.fill = 'a' + below(26);
    // The daemon takes the set-id bits away for all callers.
    if (o.kind == FALLOCATE || o.kind == COPY)
        o.caller.capabilities &= ~(1ULL << CAP_FSETID);
    // Linux before 6.3 does not tell the daemon by which other group a caller may make a file that is set-group-id.
    if ((o.kind == OPEN || o.kind == MKNOD) && o.caller.user != 0 && (o.caller.count > 0 || o.caller.capabilities))
        o.mode &= ~S_ISGID;
    switch (o.kind) {
    case OPEN: o.flags = number < MADE ? O_CREAT | O_RDWR : random_open_flags(); break;
    case FALLOCATE:
        o.flags = ANY(allocations);
        // Whether a part of a block behind the end gets a block depends on the release of Linux.
        if (o.flags == (FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE))
            o.offset &= ~4095LL, o.length = 4096 * (1 + o.length % 4);
        break;
    case SYMLINK: free(o.path2), o.path2 = strdup(chance(92) ? ANY(targets) : ""); break;
    case MKNOD: {
        static const mode_t types[] = {S_IFIFO, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFCHR, S_IFBLK, S_IFREG, 0, S_IFDIR};
        static const unsigned majors[] = {0, 1, 1, 259, 4000};
        o.mode = (o.mode & 07777) | ANY(types), o.device = makedev(ANY(majors), below(2) ? 3 : 0x12345);
        break;
    }
    case LINK: o.flags = chance(50) ? AT_SYMLINK_FOLLOW : 0; break;
    case LINK_OPEN: o.flags = chance(60) ? AT_SYMLINK_FOLLOW : AT_EMPTY_PATH; break;
    case RENAME: o.flags = ANY(renames); break;
    case CHOWN: o.flags = chance(40) ? AT_SYMLINK_NOFOLLOW : chance(10) ? AT_EMPTY_PATH : 0; break;
    case UTIMES: case STAT: case CHECK: o.flags = chance(40) ? AT_SYMLINK_NOFOLLOW : 0; break;
    case ACCESS: o.flags = (chance(50) ? AT_EACCESS : 0) | (chance(20) ? AT_SYMLINK_NOFOLLOW : 0), o.flags2 = below(8); break;
    case SETXATTR: case FSETXATTR: o.length = random_value(o.name, o.value), o.flags2 = chance(75) ? 0 : 1 + below(3); // fall through
    case GETXATTR: case LISTXATTR: case REMOVEXATTR: o.flags = chance(25); break; // of the link itself
    case FLOCK: {
        static const int locks[] = {LOCK_SH, LOCK_EX, LOCK_UN};
        o.flags = ANY(locks);
        break;
    }
    case LOCK: {
        static const int locks[] = {F_RDLCK, F_WRLCK, F_UNLCK};
        static const int commands[] = {F_OFD_SETLK, F_OFD_SETLK, F_OFD_GETLK, F_SETLK};
        o.flags = ANY(locks), o.flags2 = ANY(commands);
        break;
    }
    default: break;
    }
    return o;
}

// Callers: the saved user id stays root's, and so do the permitted capabilities.
static void set_capabilities(uint64_t effective)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0)
        fail("capget");
    for (int i = 0; i < 2; i++)
        data[i].effective = data[i].permitted & (uint32_t)(effective >> (32 * i));
    if (syscall(SYS_capset, &header, data) < 0)
        fail("capset");
}

static void become(const struct caller *caller)
{
    if (setgroups(caller->count, caller->groups) < 0 || setresgid(caller->group, caller->group, 0) < 0 || setresuid(caller->user, caller->user, 0) < 0)
        fail("becoming %d", caller->user);
    prctl(PR_SET_DUMPABLE, 1); // /proc/self/fd is the caller's
    umask(caller->umask);
    set_capabilities(caller->capabilities);
}

static void become_root(void)
{
    set_capabilities(UINT64_MAX);
    if (setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0 || setgroups(0, NULL) < 0)
        fail("becoming root");
    umask(0);
}

static int compare_names(const void *one, const void *other) { return strcmp(*(char *const *)one, *(char *const *)other); }

// Sorts names that have a null byte each.
static void sort_names(char *list, size_t size)
{
    char *names[1024], *copy = malloc(size + 1), *to = list;
    int count = 0;
    memcpy(copy, list, size);
    for (char *name = copy; name < copy + size && count < 1024; name += strlen(name) + 1)
        names[count++] = name;
    qsort(names, count, sizeof *names, compare_names);
    for (int i = 0; i < count; i++)
        to = stpcpy(to, names[i]) + 1;
    free(copy);
}

static int print_status(char *to, size_t room, const struct stat *status)
{
    return snprintf(to, room, "mode=%06o uid=%u gid=%u nlink=%lu size=%ld device=%lx blksize=%ld", status->st_mode, status->st_uid, status->st_gid, (unsigned long)status->st_nlink, (long)status->st_size,
        (long)status->st_rdev, (long)status->st_blksize);
}

static long list_directory(int fd, struct result *r)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = copy < 0 ? NULL : fdopendir(copy);
    if (!directory)
        return -1;
    errno = 0;
    for (struct dirent *entry; (entry = readdir(directory)) && r->size < MAX_DATA - 300;)
        r->size += sprintf(r->data + r->size, "%s:%d", entry->d_name, entry->d_type) + 1;
    int error = errno;
    sort_names(r->data, r->size);
    closedir(directory);
    errno = error;
    return error ? -1 : 0;
}

static long keep(struct side *side, int slot, int fd)
{
    if (fd < 0)
        return -1;
    if (side->slots[slot] >= 0)
        close(side->slots[slot]);
    side->slots[slot] = fd;
    return 0;
}

static long got(struct result *r, long size)
{
    if (size > 0)
        r->size = size;
    return size;
}

static int directory_of(const struct side *side, int at) { return at < 0 ? AT_FDCWD : side->slots[at] < 0 ? -2 : side->slots[at]; }

// Differences that have a reason, which docs/virtio-fs.md gives. What would make such a difference in the directory is done in neither.

// Whether a write or a change of owner takes the set-group-id bit from a file that its group cannot execute depends on the caller's groups, which FUSE does not tell.
static int depends_on_groups(const struct operation *o, const struct stat *status)
{
    return S_ISREG(status->st_mode) && (status->st_mode & (S_ISGID | S_IXGRP)) == S_ISGID && !(o->caller.capabilities & 1ULL << CAP_FSETID);
}

static int is_left_out(const struct side *side, const struct operation *o)
{
    int at = directory_of(side, o->at), fd = side->slots[o->slot];
    struct stat status;
    switch (o->kind) {
    case WRITE: case PWRITE: case FTRUNCATE: case FCHOWN:
        return fstat(fd, &status) == 0 && depends_on_groups(o, &status);
    case OPEN:
        return (o->flags & O_TRUNC) && fstatat(at, o->path, &status, 0) == 0 && depends_on_groups(o, &status);
    case TRUNCATE:
        return stat(o->path, &status) == 0 && depends_on_groups(o, &status);
    case CHOWN:
        return fstatat(at, o->flags == AT_EMPTY_PATH ? "" : o->path, &status, o->flags) == 0 && depends_on_groups(o, &status);
    case FALLOCATE:
        // Whether the times change when there is nothing to punch depends on the release of Linux.
        return fstat(fd, &status) == 0 && (depends_on_groups(o, &status) || ((o->flags & FALLOC_FL_PUNCH_HOLE) && o->offset >= status.st_size));
    case COPY:
        return fstat(side->slots[o->slot2], &status) == 0 && depends_on_groups(o, &status);
    case RENAME:
        // Where a directory is not empty, ext4 has left the whiteout and taken it back: the times of its directory have changed, of which the guest hears late.
        return (o->flags & 4) && fstatat(directory_of(side, o->at2), o->path2, &status, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(status.st_mode);
    // trusted.* is user.* on the host, which only files and directories have.
    case SETXATTR: case REMOVEXATTR:
        return strncmp(o->name, "trusted.", 8) == 0 && (o->flags ? lstat : stat)(o->path, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
    case FSETXATTR:
        return strncmp(o->name, "trusted.", 8) == 0 && fstat(fd, &status) == 0 && !S_ISREG(status.st_mode) && !S_ISDIR(status.st_mode);
    default:
        return 0;
    }
}

// The operation itself, with the caller's rights.
static long call(struct side *side, const struct operation *o, struct result *r)
{
    static unsigned char written[MAX_LENGTH];
    int at = directory_of(side, o->at), at2 = directory_of(side, o->at2), fd = side->slots[o->slot], fd2 = side->slots[o->slot2];
    struct stat status;
    char link[16];
    long value;
    memset(written, o->fill, sizeof written);
    switch (o->kind) {
    case OPEN: return keep(side, o->slot, openat(at, o->path, o->flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, o->mode & 07777));
    case CLOSE: side->slots[o->slot] = -1; return close(fd);
    case READ: return got(r, read(fd, r->data, o->length));
    case PREAD: return got(r, pread(fd, r->data, o->length, o->offset));
    case WRITE: return write(fd, written, o->length);
    case PWRITE: return pwrite(fd, written, o->length, o->offset);
    case FTRUNCATE: return ftruncate(fd, o->offset);
    case TRUNCATE: return truncate(o->path, o->offset);
    case FALLOCATE: return fallocate(fd, o->flags, o->offset, o->length);
    case COPY: {
        off_t from = o->offset, to = o->offset2;
        return copy_file_range(fd, &from, fd2, &to, o->length, 0);
    }
    case SYNC: return fsync(fd);
    case MKDIR: return mkdirat(at, o->path, o->mode);
    case MKNOD: return mknodat(at, o->path, o->mode, o->device);
    case SYMLINK: return symlinkat(o->path2, at, o->path);
    case LINK: return linkat(at, o->path, at2, o->path2, o->flags);
    case LINK_OPEN:
        if (o->flags == AT_EMPTY_PATH)
            return linkat(fd, "", at2, o->path2, AT_EMPTY_PATH);
        snprintf(link, sizeof link, "%d", fd);
        return linkat(descriptors, link, at2, o->path2, AT_SYMLINK_FOLLOW);
    case RENAME: return renameat2(at, o->path, at2, o->path2, o->flags);
    case UNLINK: return unlinkat(at, o->path, 0);
    case RMDIR: return unlinkat(at, o->path, AT_REMOVEDIR);
    case CHMOD: return fchmodat(at, o->path, o->mode & 07777, 0);
    case FCHMOD: return fchmod(fd, o->mode & 07777);
    case CHOWN: return fchownat(at, o->flags == AT_EMPTY_PATH ? "" : o->path, o->user, o->group, o->flags);
    case FCHOWN: return fchown(fd, o->user, o->group);
    case UTIMES: return utimensat(at, o->path, o->times, o->flags);
    case FUTIMES: return futimens(fd, o->times);
    case ACCESS: return syscall(SYS_faccessat2, at, o->path, o->flags2, o->flags);
    case SETXATTR: return (o->flags ? lsetxattr : setxattr)(o->path, o->name, o->value, o->length, o->flags2);
    case FSETXATTR: return fsetxattr(fd, o->name, o->value, o->length, o->flags2);
    case GETXATTR: return got(r, (o->flags ? lgetxattr : getxattr)(o->path, o->name, r->data, o->length));
    case FGETXATTR: return got(r, fgetxattr(fd, o->name, r->data, o->length));
    case LISTXATTR:
        value = got(r, (o->flags ? llistxattr : listxattr)(o->path, r->data, o->length));
        if (o->length > 0)
            sort_names(r->data, r->size);
        else
            r->size = 0;
        return value;
    case REMOVEXATTR: return (o->flags ? lremovexattr : removexattr)(o->path, o->name);
    case STAT:
        value = fstatat(at, o->path, &status, o->flags);
        if (value == 0)
            r->size = print_status(r->data, MAX_DATA, &status);
        return value;
    case FSTAT:
        value = fstat(fd, &status);
        if (value == 0)
            r->size = print_status(r->data, MAX_DATA, &status);
        return value;
    case READLINK: return got(r, readlinkat(at, o->path, r->data, o->length));
    case READDIR: return list_directory(fd, r);
    case FLOCK: return flock(fd, o->flags | LOCK_NB);
    case LOCK: {
        struct flock lock = {.l_type = o->flags, .l_whence = SEEK_SET, .l_start = o->offset2, .l_len = o->length};
        value = fcntl(fd, o->flags2, &lock);
        if (value == 0 && o->flags2 == F_OFD_GETLK)
            r->size = sprintf(r->data, "%d %d %ld %ld", lock.l_type, lock.l_whence, (long)lock.l_start, (long)lock.l_len);
        return value;
    }
    case CHECK: break;
    }
    return 0;
}

// Paths begin at the side's directory, and no link leads out of it.
static void enter(struct side *side)
{
    if (fchdir(side->root) < 0 || chroot(".") < 0)
        fail("%s", side->name);
}

static void perform(struct side *side, const struct operation *o, struct result *r)
{
    enter(side);
    r->size = 0;
    r->value = r->error = 0;
    if (is_left_out(side, o))
        return;
    become(&o->caller);
    errno = 0;
    r->value = call(side, o, r);
    r->error = r->value < 0 ? errno : 0;
    become_root();
}

// The trees.
static __attribute__((format(printf, 2, 3))) void say(struct side *side, const char *format, ...)
{
    va_list arguments;
    if (side->room - side->size < 8192 && !(side->tree = realloc(side->tree, side->room += 1 << 16)))
        fail("realloc");
    va_start(arguments, format);
    side->size += vsnprintf(side->tree + side->size, 8192, format, arguments);
    va_end(arguments);
}

static uint64_t hash(uint64_t sum, const unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size; i++)
        sum = (sum ^ data[i]) * 0x100000001B3ULL;
    return sum;
}

static void say_content(struct side *side, int fd)
{
    static unsigned char data[2 * MAX_OFFSET];
    ssize_t size = pread(fd, data, sizeof data, 0);
    if (size < 0)
        say(side, " content=errno %d", errno);
    else
        say(side, " content=%zd:%016lx", size, (unsigned long)hash(0xCBF29CE484222325ULL, data, size));
}

static int has_changed(const struct timespec *one, const struct timespec *other) { return one->tv_sec != other->tv_sec || one->tv_nsec != other->tv_nsec; }

// A time is one that was given, which has to be the same; or it is "now", and has changed since the last check or not.
static void say_time(struct side *side, const char *name, const struct timespec *time, const struct timespec *before)
{
    struct timespec clock;
    clock_gettime(CLOCK_REALTIME, &clock);
    if (labs(clock.tv_sec - time->tv_sec) > 100000)
        say(side, " %s=%ld.%09ld", name, (long)time->tv_sec, time->tv_nsec);
    else
        say(side, " %s=%s", name, !before || has_changed(time, before) ? "changed" : "same");
}

// The number of the file among those that were seen in this tree.
static int note(struct side *side, const struct stat *status, const struct entry **before)
{
    *before = NULL;
    for (int i = 0; i < side->count_before; i++)
        if (side->before[i].number == status->st_ino)
            *before = &side->before[i];
    for (int i = 0; i < side->count; i++)
        if (side->entries[i].number == status->st_ino)
            return i;
    if (side->count == MAX_FILES)
        fail("more than %d files", MAX_FILES);
    side->entries[side->count] = (struct entry){status->st_ino, status->st_ctim, status->st_mtim};
    return side->count++;
}

static void say_status(struct side *side, const struct stat *status)
{
    const struct entry *before;
    int number = note(side, status, &before);
    char text[256];
    print_status(text, sizeof text, status);
    say(side, " file=%d %s", number, text);
    say_time(side, "ctime", &status->st_ctim, before ? &before->changed : NULL);
    say_time(side, "mtime", &status->st_mtim, before ? &before->modified : NULL);
    if (labs(status->st_atim.tv_sec - status->st_ctim.tv_sec) > 100000)
        say(side, " atime=%ld.%09ld", (long)status->st_atim.tv_sec, status->st_atim.tv_nsec);
}

static void say_attributes(struct side *side, const char *path, const long *blocks)
{
    char list[8192], value[8192];
    ssize_t size = llistxattr(path, list, sizeof list);
    // An attribute may have a block: trusted.* is longer on the host. How many blocks data has depends on when it was written to the disk.
    if (size == 0 && blocks)
        say(side, " blocks=%s", *blocks ? "some" : "none");
    if (size < 0) {
        say(side, " xattrs=errno %d", errno);
        return;
    }
    sort_names(list, size);
    for (char *name = list; name < list + size; name += strlen(name) + 1) {
        ssize_t length = lgetxattr(path, name, value, sizeof value);
        if (length < 0)
            say(side, " %s=errno %d", name, errno);
        else
            say(side, " %s=%zd:", name, length);
        for (ssize_t i = 0; i < length; i++)
            say(side, "%02x", (unsigned char)value[i]);
    }
}

static void walk(struct side *side, const char *path, ino_t number, int type, int is_synced)
{
    struct stat status;
    if (lstat(path, &status) < 0) {
        say(side, "%s errno %d\n", path, errno);
        return;
    }
    say(side, "%s", path);
    say_status(side, &status);
    long blocks = status.st_blocks;
    if (number && (number != status.st_ino || type != (int)((status.st_mode & S_IFMT) >> 12)))
        say(side, " the directory says it is %lu of type %d, and not %lu", (unsigned long)number, type, (unsigned long)status.st_ino);
    say_attributes(side, path, is_synced && has_blocks ? &blocks : NULL);
    if (S_ISLNK(status.st_mode)) {
        char target[4097] = "";
        ssize_t length = readlink(path, target, 4096);
        say(side, " target=%zd:%s", length, target);
    } else if (S_ISREG(status.st_mode)) {
        int fd = open(path, O_RDONLY | O_NOATIME | O_CLOEXEC);
        if (fd < 0)
            say(side, " open=errno %d", errno);
        else
            say_content(side, fd), close(fd);
    }
    say(side, "\n");
    if (!S_ISDIR(status.st_mode))
        return;
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0)
        say(side, "%s scandir errno %d\n", path, errno);
    for (int i = 0; i < count; i++) {
        char below[8192];
        snprintf(below, sizeof below, "%s/%s", path, names[i]->d_name);
        if (strcmp(names[i]->d_name, ".") != 0 && strcmp(names[i]->d_name, "..") != 0)
            walk(side, below, names[i]->d_ino, names[i]->d_type, is_synced);
        free(names[i]);
    }
    if (count >= 0)
        free(names);
}

static void look(struct side *side, int is_synced)
{
    enter(side);
    if (is_synced && syncfs(side->root) < 0)
        fail("syncfs of %s", side->name);
    side->size = side->count = 0;
    walk(side, ".", 0, 0, is_synced);
    for (int i = 0; i < SLOTS; i++) {
        struct stat status;
        int fd = side->slots[i];
        if (fd < 0)
            continue;
        say(side, "slot %d", i);
        if (fstat(fd, &status) < 0) {
            say(side, " errno %d\n", errno);
            continue;
        }
        say_status(side, &status);
        if (S_ISREG(status.st_mode) && (fcntl(fd, F_GETFL) & (O_ACCMODE | O_PATH)) != O_WRONLY && (fcntl(fd, F_GETFL) & O_PATH) == 0)
            say_content(side, fd);
        if (S_ISREG(status.st_mode))
            say(side, " position=%ld", (long)lseek(fd, 0, SEEK_CUR));
        say(side, "\n");
    }
    memcpy(side->before, side->entries, side->count * sizeof *side->entries);
    side->count_before = side->count;
}

static int is_same_tree(int is_synced)
{
    for (int i = 0; i < 2; i++)
        look(&sides[i], is_synced);
    struct timespec pause = {.tv_nsec = GRANULARITY * 1000000};
    nanosleep(&pause, NULL);
    if (sides[0].size == sides[1].size && memcmp(sides[0].tree, sides[1].tree, sides[0].size) == 0)
        return 1;
    const char *line[2] = {sides[0].tree, sides[1].tree}, *end[2];
    for (;;) {
        for (int i = 0; i < 2; i++) {
            const char *last = sides[i].tree + sides[i].size;
            end[i] = line[i] < last ? memchr(line[i], '\n', last - line[i]) : line[i];
        }
        if (end[0] == line[0] || end[1] == line[1] || end[0] - line[0] != end[1] - line[1] || memcmp(line[0], line[1], end[0] - line[0]) != 0)
            break;
        line[0] = end[0] + 1, line[1] = end[1] + 1;
    }
    snprintf(message, sizeof message, "the trees differ\n  %s: %.*s\n  %s: %.*s\n", sides[0].name, (int)(end[0] - line[0]), line[0], sides[1].name, (int)(end[1] - line[1]), line[1]);
    return 0;
}

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
