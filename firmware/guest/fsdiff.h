// What the parts of fsdiff share.
#include "check.h"
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

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

/* fsdiff.c */
extern struct side sides[2];
extern int descriptors;             // /proc/self/fd
extern int has_blocks;              // whether they are compared
extern struct result results[2];
extern char message[3 * 4096];      // the difference

/* fsdiff-operations.c */
struct operation random_operation(uint64_t seed, int number);

/* fsdiff-perform.c */
void sort_names(char *list, size_t size);
int print_status(char *to, size_t room, const struct stat *status);
void enter(struct side *side);
void perform(struct side *side, const struct operation *o, struct result *r);

/* fsdiff-trees.c */
int is_same_tree(int is_synced);
