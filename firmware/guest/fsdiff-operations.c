// Makes the random operations of fsdiff: each is made of its episode's seed and its number alone.
#include "fsdiff.h"
#include <linux/capability.h>
#include <sys/sysmacros.h>

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
struct operation random_operation(uint64_t seed, int number)
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
