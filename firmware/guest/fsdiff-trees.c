// Describes the trees of fsdiff, a line for each file, and compares them.
#include "fsdiff.h"
#include <dirent.h>
#include <sys/xattr.h>

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

int is_same_tree(int is_synced)
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
