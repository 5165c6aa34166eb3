/* The end of the guest: what was written is on the disks, and nothing has them any more. */
#include "agent.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <mntent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MAX_MOUNTS 4096
#define MAX_KEPT 64
#define END_TRIES 200 /* until killed processes have closed their files, for all mounts and disks */

struct mounted {
    dev_t device; /* that of a disk; another has major number 0 */
    char *type, *source, *target;
};

/* Disks that stay in use, and are written no more: the root's, and those that could only be made read-only. */
static char kept_disks[MAX_KEPT][32];
static size_t kept_count;

void keep_disk(const char *name)
{
    if (kept_count < MAX_KEPT)
        snprintf(kept_disks[kept_count++], sizeof kept_disks[0], "%s", name);
}

static bool is_kept(const char *disk)
{
    for (size_t i = 0; i < kept_count; i++)
        if (strcmp(disk, kept_disks[i]) == 0)
            return true;
    return false;
}

/* The disk of a device, which may be a partition: a link such as ../../devices/…/block/vda/vda1. */
static void keep_disk_of(dev_t device)
{
    static const char directory[] = "/block/";
    char path[64], link[4096];
    snprintf(path, sizeof path, "/sys/dev/block/%u:%u", major(device), minor(device));
    ssize_t length = readlink(path, link, sizeof link - 1);
    link[length > 0 ? length : 0] = 0;
    char *name = strstr(link, directory);
    if (!name)
        return;
    name += sizeof directory - 1;
    name[strcspn(name, "/")] = 0;
    keep_disk(name);
}

static bool is_octal(char digit)
{
    return digit >= '0' && digit <= '7';
}

/* "\040" is a space, in place. */
static char *decode(char *text)
{
    char *to = text;
    for (const char *from = text; *from; to++) {
        bool is_escape = from[0] == '\\' && is_octal(from[1]) && is_octal(from[2]) && is_octal(from[3]);
        *to = is_escape ? (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0')) : *from;
        from += is_escape ? 4 : 1;
    }
    *to = 0;
    return text;
}

/* A line of /proc/self/mountinfo (proc_pid_mountinfo(5)): "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw". A blank in a name is "\040" there. */
static bool parse_mount(char *line, struct mounted *mounted)
{
    unsigned int major, minor;
    char *separator = strstr(line, " - ");
    *mounted = (struct mounted){ 0 };
    if (!separator || sscanf(line, "%*u %*u %u:%u %*[^ ] %m[^ ]", &major, &minor, &mounted->target) != 3 || sscanf(separator, " - %m[^ ] %m[^ ]", &mounted->type, &mounted->source) != 2) {
        free(mounted->target);
        free(mounted->type);
        return false;
    }
    mounted->device = makedev(major, minor);
    decode(mounted->target);
    decode(mounted->source);
    return true;
}

/* By /proc/filesystems, whose other lines begin with "nodev". That of a program's has a name of its own behind a dot. */
static bool needs_disk(const char *type)
{
    char line[128], name[64];
    size_t length = strcspn(type, ".");
    bool is_found = false;
    FILE *types = fopen("/proc/filesystems", "re");
    while (types && !is_found && fgets(line, sizeof line, types))
        is_found = sscanf(line, "\t%63s", name) == 1 && *line == '\t' && strlen(name) == length && strncmp(name, type, length) == 0;
    if (types)
        fclose(types);
    return is_found;
}

/* The number tells, whatever the source is called. That of btrfs is none of a disk. */
static bool is_on_disk(const struct mounted *mounted)
{
    return major(mounted->device) != 0 || strncmp(mounted->source, "/dev/", 5) == 0 || needs_disk(mounted->type);
}

static bool make_read_only(const char *target)
{
    return mount(NULL, target, NULL, MS_REMOUNT | MS_RDONLY, NULL) == 0;
}

/* The root stays mounted, and nothing more is written to it. */
static bool end_mount(const char *target)
{
    return strcmp(target, "/") == 0 ? make_read_only(target) : umount2(target, 0) == 0;
}

static bool is_in(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return length > 1 && strncmp(path, directory, length) == 0 && (path[length] == '/' || !path[length]);
}

/* What is mounted in a file system holds it. What is mounted over it hides it: neither can be unmounted before that. */
static bool hinders_one_of(const char *path, const struct mounted *mounts, size_t count)
{
    while (count-- > 0)
        if (is_in(path, mounts[count].target) || is_in(mounts[count].target, path))
            return true;
    return false;
}

/* The lines have their names as those of /proc/mounts have them. */
static void end_swap(void)
{
    FILE *swaps = setmntent("/proc/swaps", "re");
    struct mntent *entry;
    while (swaps && (entry = getmntent(swaps)))
        if (*entry->mnt_fsname == '/' && swapoff(entry->mnt_fsname) < 0)
            log_line("cannot end swap on %s: %s", entry->mnt_fsname, strerror(errno));
    if (swaps)
        endmntent(swaps);
}

/* One that is in use ends with its last user. */
static void end_loop_devices(void)
{
    char path[300];
    DIR *devices = opendir("/sys/block");
    struct dirent *entry;
    while (devices && (entry = readdir(devices))) {
        if (strncmp(entry->d_name, "loop", 4) != 0)
            continue;
        snprintf(path, sizeof path, "/dev/%s", entry->d_name);
        int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
        if (fd < 0)
            continue;
        ioctl(fd, LOOP_CLR_FD, 0); /* ENXIO: it has no file */
        close(fd);
    }
    if (devices)
        closedir(devices);
}

/* On a disk, in one that is or over it; an overlay, whose layers may be on one; or a namespace that is kept by a file (nsfs), in which a disk may be mounted. */
static bool holds_a_disk(const struct mounted *mounted, const struct mounted *mounts, size_t count)
{
    return is_on_disk(mounted) || hinders_one_of(mounted->target, mounts, count) || strcmp(mounted->type, "nsfs") == 0
        || (strcmp(mounted->type, "overlay") == 0 && strcmp(mounted->target, "/") != 0);
}

/* Those that are to be ended, in the order of their making. Returns how many. */
static size_t find_mounts(struct mounted *mounts)
{
    size_t count = 0, size = 0;
    char *line = NULL;
    FILE *file = fopen("/proc/self/mountinfo", "re");
    while (file && count < MAX_MOUNTS && getline(&line, &size, file) > 0)
        if (parse_mount(line, &mounts[count]) && holds_a_disk(&mounts[count], mounts, count))
            count++;
    if (file)
        fclose(file);
    return count;
}

/* What stays mounted is read-only: its disk need not be free. */
static void keep_disk_behind(const struct mounted *mounted)
{
    struct stat status;
    if (major(mounted->device) != 0)
        keep_disk_of(mounted->device);
    else if (stat(mounted->source, &status) == 0 && S_ISBLK(status.st_mode))
        keep_disk_of(status.st_rdev);
}

static bool has_entries(const char *path)
{
    bool is_found = false;
    DIR *directory = opendir(path);
    struct dirent *entry;
    while (directory && !is_found && (entry = readdir(directory)))
        is_found = *entry->d_name != '.';
    if (directory)
        closedir(directory);
    return is_found;
}

/* Whether another device is made of it or of a partition, such as one of the device mapper: then that one tells whether it is in use. */
static bool has_holders(const char *disk)
{
    char path[600];
    snprintf(path, sizeof path, "/sys/block/%s", disk);
    DIR *directory = opendir(path);
    struct dirent *entry;
    snprintf(path, sizeof path, "/sys/block/%s/holders", disk);
    bool is_held = has_entries(path);
    while (directory && !is_held && (entry = readdir(directory))) {
        snprintf(path, sizeof path, "/sys/block/%.255s/%.255s/holders", disk, entry->d_name);
        is_held = strncmp(entry->d_name, disk, strlen(disk)) == 0 && has_entries(path);
    }
    if (directory)
        closedir(directory);
    return is_held;
}

/* The kernel lets nobody have it alone as long as a file system is mounted on it, wherever. */
static bool is_in_use(const char *disk)
{
    char path[300];
    snprintf(path, sizeof path, "/dev/%s", disk);
    int fd = open(path, O_RDONLY | O_EXCL | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0)
        close(fd);
    return fd < 0 && errno == EBUSY;
}

static bool is_in_memory(const char *disk)
{
    return strncmp(disk, "loop", 4) == 0 || strncmp(disk, "ram", 3) == 0 || strncmp(disk, "zram", 4) == 0;
}

/* A disk may be mounted where no path of this process leads to: in a mount namespace whose last process is about to end, or cannot. */
static void wait_for_disks(int tries)
{
    DIR *disks = opendir("/sys/block");
    struct dirent *entry;
    while (disks && (entry = readdir(disks))) {
        if (*entry->d_name == '.' || is_in_memory(entry->d_name) || is_kept(entry->d_name) || has_holders(entry->d_name))
            continue;
        bool is_used;
        while ((is_used = is_in_use(entry->d_name)) && tries-- > 0)
            wait_a_moment();
        if (is_used)
            log_line("cannot unmount the disk %s: a process that does not end or the kernel uses it", entry->d_name);
    }
    if (disks)
        closedir(disks);
}

/* Everything that was written is where it belongs, and file systems on disks are unmounted. The last mount goes first. */
void make_quiet(void)
{
    static struct mounted mounts[MAX_MOUNTS];
    int tries = END_TRIES;
    end_swap();
    end_loop_devices();
    size_t count = find_mounts(mounts);
    sync();
    while (count-- > 0) {
        const struct mounted *mounted = &mounts[count];
        bool is_ended;
        while (!(is_ended = end_mount(mounted->target)) && errno == EBUSY && tries-- > 0)
            wait_a_moment();
        if (is_ended && strcmp(mounted->target, "/") != 0)
            continue;
        if (!is_ended && strcmp(mounted->target, "/") != 0 && (errno == EINVAL || errno == ENOENT))
            continue; /* it has ended with another one, from which it was propagated */
        if (!is_ended && !make_read_only(mounted->target) && strcmp(mounted->type, "nsfs") != 0)
            log_line("cannot unmount %s: %s", mounted->target, strerror(errno));
        keep_disk_behind(mounted);
    }
    wait_for_disks(tries);
}
