// Does an operation of fsdiff in one of the directories.
#include "fsdiff.h"
#include <dirent.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

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
void sort_names(char *list, size_t size)
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

int print_status(char *to, size_t room, const struct stat *status)
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
void enter(struct side *side)
{
    if (fchdir(side->root) < 0 || chroot(".") < 0)
        fail("%s", side->name);
}

void perform(struct side *side, const struct operation *o, struct result *r)
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
