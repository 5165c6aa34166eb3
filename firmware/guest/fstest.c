// Works a file system, in one process: starting programs takes too long in the emulated KVM host.
//   fstest files DIR COUNT            creates files, lists them, reads them back, renames and removes them
//   fstest posix DIR                  what programs expect of a file system beyond reading and writing
//   fstest cut FILE SECONDS           works a mapped file of 4 MiB that the host makes shorter and longer all the time; then one that it has cut off
//   fstest random FILE SECONDS SEED   random operations on one file, each compared with what they must give (as fsx does)
// Prints NAME=VALUE lines, and ends with status 1 and a message at the first thing that is not as it should be.
#include "check.h"
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#define MAX_CONTENT 16384
#define MAX_FILE (1 << 20)
#define MAX_OPERATION (1 << 16)

static uint64_t state;

static uint64_t next(void) { return next_random(&state); }

static uint64_t below(uint64_t limit) { return next() % limit; }

static void fill(unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size; i += 8) {
        uint64_t value = next();
        memcpy(data + i, &value, size - i < 8 ? size - i : 8);
    }
}

// SHA-256 (FIPS 180-4).
struct sha256 {
    uint32_t h[8];
    unsigned char block[64];
    uint64_t length;
};

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(struct sha256 *hash)
{
    static const uint32_t k[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
        0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
        0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
        0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
        0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
        0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t w[64], v[8];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)hash->block[4 * i] << 24 | hash->block[4 * i + 1] << 16 | hash->block[4 * i + 2] << 8 | hash->block[4 * i + 3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3)
            + (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(v, hash->h, sizeof v);
    for (int i = 0; i < 64; i++) {
        uint32_t a = v[7] + (rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25)) + ((v[4] & v[5]) ^ (~v[4] & v[6])) + k[i] + w[i];
        uint32_t b = (rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22)) + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));
        memmove(v + 1, v, 7 * sizeof *v);
        v[4] += a;
        v[0] = a + b;
    }
    for (int i = 0; i < 8; i++)
        hash->h[i] += v[i];
}

static void sha256_start(struct sha256 *hash)
{
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(hash->h, start, sizeof start);
    hash->length = 0;
}

static void sha256_add(struct sha256 *hash, const unsigned char *data, size_t size)
{
    for (size_t i = 0; i < size; i++) {
        hash->block[hash->length++ % 64] = data[i];
        if (hash->length % 64 == 0)
            sha256_block(hash);
    }
}

static void sha256_print(struct sha256 *hash, const char *name)
{
    uint64_t bits = hash->length * 8;
    unsigned char end = 0x80, length[8];
    do
        sha256_add(hash, &end, 1), end = 0;
    while (hash->length % 64 != 56);
    for (int i = 0; i < 8; i++)
        length[i] = bits >> (56 - 8 * i);
    sha256_add(hash, length, 8);
    printf("%s=", name);
    for (int i = 0; i < 8; i++)
        printf("%08x", hash->h[i]);
    printf("\n");
}

static int count_entries(const char *path)
{
    DIR *directory = opendir(path);
    if (!directory)
        fail("opendir %s", path);
    int count = 0;
    for (struct dirent *entry; (entry = readdir(directory));)
        count += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0;
    closedir(directory);
    return count;
}

static void files(const char *root, int count)
{
    static unsigned char content[MAX_CONTENT], found[MAX_CONTENT + 1];
    char path[512], other[512];
    struct sha256 hash;
    double start = now();

    state = 1;
    sha256_start(&hash);
    for (int i = 0; i < count; i++) {
        size_t size = below(MAX_CONTENT);
        fill(content, size);
        sha256_add(&hash, content, size);
        snprintf(path, sizeof path, "%s/f%06d", root, i);
        int file = open(path, O_WRONLY | O_CREAT | O_EXCL, 0644);
        if (file < 0 || write(file, content, size) != (ssize_t)size || close(file) < 0)
            fail("create %s", path);
    }
    sha256_print(&hash, "written");
    printf("created=%.1f\n", now() - start);
    if (count_entries(root) != count)
        fail("%s has %d entries", root, count_entries(root));

    // Not what is still in this guest's cache.
    int caches = open("/proc/sys/vm/drop_caches", O_WRONLY);
    if (caches < 0 || write(caches, "3", 1) != 1 || close(caches) < 0)
        fail("drop_caches");
    start = now();
    state = 1;
    sha256_start(&hash);
    for (int i = 0; i < count; i++) {
        size_t size = below(MAX_CONTENT);
        fill(content, size);
        snprintf(path, sizeof path, "%s/f%06d", root, i);
        int file = open(path, O_RDONLY);
        ssize_t got = file < 0 ? -1 : read(file, found, sizeof found);
        if (got != (ssize_t)size || memcmp(found, content, size) != 0)
            fail("%s has %zd bytes of %zu, or others", path, got, size);
        close(file);
        sha256_add(&hash, found, size);
    }
    sha256_print(&hash, "read");
    printf("verified=%.1f\n", now() - start);

    start = now();
    snprintf(other, sizeof other, "%s/moved", root);
    if (mkdir(other, 0755) < 0)
        fail("mkdir %s", other);
    for (int i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/f%06d", root, i);
        snprintf(other, sizeof other, "%s/moved/g%06d", root, i);
        if (rename(path, other) < 0)
            fail("rename %s", path);
    }
    snprintf(other, sizeof other, "%s/moved", root);
    if (count_entries(root) != 1 || count_entries(other) != count)
        fail("not all was renamed");
    printf("renamed=%.1f\n", now() - start);
    start = now();
    for (int i = 0; i < count; i++) {
        snprintf(other, sizeof other, "%s/moved/g%06d", root, i);
        if (unlink(other) < 0)
            fail("unlink %s", other);
    }
    snprintf(other, sizeof other, "%s/moved", root);
    if (rmdir(other) < 0 || count_entries(root) != 0)
        fail("not all was removed");
    printf("removed=%.1f\n", now() - start);
}

static unsigned char model[MAX_FILE], buffer[MAX_FILE];
static size_t size;
static int file;
static const char *name;

static void reopen(void)
{
    if (close(file) < 0 || (file = open(name, O_RDWR)) < 0)
        fail("reopen");
}

static void compare(const char *how, const unsigned char *found, size_t offset, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        if (found[i] != model[offset + i])
            fail("%s: byte 0x%zx of 0x%zx is 0x%02x and not 0x%02x", how, offset + i, size, found[i], model[offset + i]);
    }
}

static void check_read(size_t offset, size_t length)
{
    ssize_t expected = offset >= size ? 0 : size - offset < length ? size - offset : length;
    ssize_t got = pread(file, buffer, length, offset);
    if (got != expected)
        fail("read 0x%zx+0x%zx of 0x%zx: %zd bytes and not %zd", offset, length, size, got, expected);
    compare("read", buffer, offset, got);
}

static void random_operations(const char *path, int seconds, uint64_t seed)
{
    unsigned long count = 0;
    name = path;
    state = seed * 2 + 1;
    file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0644);
    if (file < 0)
        fail("open %s", path);
    for (double end = now() + seconds; now() < end; count++) {
        size_t offset = below(MAX_FILE), length = 1 + below(MAX_OPERATION);
        if (length > MAX_FILE - offset)
            length = MAX_FILE - offset;
        size_t end_of = offset + length;
        switch (below(16)) {
        case 0 ... 4:
            check_read(offset, length);
            break;
        case 5 ... 9:
            fill(model + offset, length);
            if (pwrite(file, model + offset, length, offset) != (ssize_t)length)
                fail("write 0x%zx+0x%zx", offset, length);
            size = size > end_of ? size : end_of;
            break;
        case 10:
            if (ftruncate(file, offset) < 0)
                fail("truncate to 0x%zx", offset);
            if (offset < size)
                memset(model + offset, 0, size - offset);
            size = offset;
            break;
        case 11:
            if (fsync(file) < 0)
                fail("fsync");
            break;
        case 12:
            reopen();
            break;
        case 13:
            if (fallocate(file, 0, offset, length) == 0)
                size = size > end_of ? size : end_of;
            else if (errno != EOPNOTSUPP)
                fail("fallocate 0x%zx+0x%zx", offset, length);
            break;
        default: {
            // A mapping: read, and in half of the cases written.
            if (offset >= size)
                break;
            if (end_of > size)
                length = size - offset;
            size_t page = offset & ~4095UL, room = offset - page + length;
            unsigned char *map = mmap(NULL, room, PROT_READ | PROT_WRITE, MAP_SHARED, file, page);
            if (map == MAP_FAILED)
                fail("mmap 0x%zx+0x%zx", page, room);
            compare("mapping", map + (offset - page), offset, length);
            if (below(2)) {
                fill(model + offset, length);
                memcpy(map + (offset - page), model + offset, length);
                if (msync(map, room, MS_SYNC) < 0)
                    fail("msync");
            }
            munmap(map, room);
        }
        }
        struct stat status;
        if (fstat(file, &status) < 0 || (size_t)status.st_size != size)
            fail("size is 0x%zx and not 0x%zx", (size_t)status.st_size, size);
    }
    reopen();
    for (size_t offset = 0; offset < size; offset += MAX_OPERATION)
        check_read(offset, MAX_OPERATION);
    printf("operations=%lu\n", count);
}

#define CHECK(condition) \
    do { \
        if (!(condition)) \
            fail("line %d: %s", __LINE__, #condition); \
    } while (0)

static int make(const char *path, const char *text)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0644);
    CHECK(fd >= 0);
    CHECK(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    return fd;
}

static int holds(const char *path, const char *text)
{
    char found[64] = {0};
    int fd = open(path, O_RDONLY);
    if (fd < 0)
        return 0;
    CHECK(read(fd, found, sizeof(found) - 1) >= 0);
    close(fd);
    return strcmp(found, text) == 0;
}

// Whether another process can lock the file.
static int is_free(const char *path, int whole)
{
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
        int fd = open(path, O_RDWR);
        _exit(whole ? flock(fd, LOCK_EX | LOCK_NB) != 0 : fcntl(fd, F_SETLK, &lock) != 0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    return status == 0;
}

// Two processes that would wait for each other: one of them is told so.
static void deadlock(int fd, const char *path)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 0, .l_len = 1};
    int ready[2], status;
    char byte = 0;
    CHECK(pipe(ready) == 0 && fcntl(fd, F_SETLK, &lock) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        int theirs = open(path, O_RDWR);
        lock.l_start = 1;
        if (fcntl(theirs, F_SETLK, &lock) < 0 || write(ready[1], &byte, 1) != 1)
            _exit(1);
        lock.l_start = 0;
        _exit(fcntl(theirs, F_SETLKW, &lock) == 0 ? 0 : errno);
    }
    CHECK(read(ready[0], &byte, 1) == 1);
    lock.l_start = 1;
    int mine = fcntl(fd, F_SETLKW, &lock) == 0 ? 0 : errno;
    lock = (struct flock){.l_type = F_UNLCK, .l_whence = SEEK_SET};
    CHECK(fcntl(fd, F_SETLK, &lock) == 0 && waitpid(child, &status, 0) == child && WIFEXITED(status));
    CHECK((mine == EDEADLK && WEXITSTATUS(status) == 0) || (mine == 0 && WEXITSTATUS(status) == EDEADLK));
    close(ready[0]);
    close(ready[1]);
}

// Files that are removed, renamed and exchanged while they are open.
static void posix_names(void)
{
    struct stat status;
    char text[8];
    int fd = make("open", "removed");
    CHECK(unlink("open") == 0 && fstat(fd, &status) == 0 && status.st_nlink == 0);
    CHECK(pread(fd, text, 7, 0) == 7 && memcmp(text, "removed", 7) == 0 && ftruncate(fd, 3) == 0 && fchmod(fd, 0600) == 0);
    close(fd);
    close(make("one", "one"));
    close(make("two", "two"));
    CHECK(renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_EXCHANGE) == 0 && holds("one", "two") && holds("two", "one"));
    CHECK(renameat2(AT_FDCWD, "one", AT_FDCWD, "two", RENAME_NOREPLACE) < 0 && errno == EEXIST);
    CHECK(rename("one", "two") == 0 && holds("two", "two") && access("one", F_OK) < 0 && errno == ENOENT);
    CHECK(mkdir("directory", 0700) == 0 && mkdir("directory", 0700) < 0 && errno == EEXIST);
    CHECK(rename("two", "directory/two") == 0 && rmdir("directory") < 0 && errno == ENOTEMPTY);
    CHECK(rename("directory", "directory/inside") < 0 && errno == EINVAL);
}

// Links.
static void posix_links(void)
{
    struct stat status, other;
    char text[256];
    CHECK(link("directory/two", "hard") == 0 && stat("hard", &status) == 0 && stat("directory/two", &other) == 0);
    CHECK(status.st_ino == other.st_ino && status.st_nlink == 2);
    CHECK(symlink("directory/two", "soft") == 0 && readlink("soft", text, sizeof(text)) == 13 && holds("soft", "two"));
    CHECK(symlink("/proc/version", "absolute") == 0 && access("absolute", R_OK) == 0);
    CHECK(open("soft", O_RDONLY | O_NOFOLLOW) < 0 && errno == ELOOP);
    int fd = open(".", O_TMPFILE | O_RDWR, 0644);
    if (fd < 0 && errno == EOPNOTSUPP) { // the file system below has none
        printf("tmpfile=none\n");
        close(make("named", "tmp"));
    } else {
        CHECK(fd >= 0 && write(fd, "tmp", 3) == 3);
        snprintf(text, sizeof(text), "/proc/self/fd/%d", fd);
        CHECK(linkat(AT_FDCWD, text, AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0 && holds("named", "tmp"));
        close(fd);
        printf("tmpfile=linked\n");
    }
    CHECK(mkfifo("fifo", 0644) == 0 && stat("fifo", &status) == 0 && S_ISFIFO(status.st_mode));
    CHECK(mknod("null", S_IFCHR | 0666, makedev(1, 3)) == 0 && (fd = open("null", O_WRONLY)) >= 0 && write(fd, "x", 1) == 1);
    close(fd);
}

// Owners, modes and times. Who writes to another's set-user-id file takes the bit away.
static void posix_owners(void)
{
    struct stat status;
    int fd = make("owned", "x");
    CHECK(fchown(fd, 1000, 1000) == 0 && fchmod(fd, 04755) == 0 && fstat(fd, &status) == 0 && status.st_uid == 1000 && (status.st_mode & 07777) == 04755);
    struct timespec times[2] = {{.tv_sec = 1000, .tv_nsec = 5}, {.tv_sec = 2000, .tv_nsec = 7}};
    CHECK(futimens(fd, times) == 0 && fstat(fd, &status) == 0 && status.st_mtim.tv_sec == 2000 && status.st_mtim.tv_nsec == 7);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK(chmod("owned", 04777) == 0 && chmod(".", 0777) == 0 && setgid(2000) == 0 && setuid(2000) == 0);
        int theirs = open("owned", O_WRONLY);
        CHECK(theirs >= 0 && write(theirs, "y", 1) == 1 && fstat(theirs, &status) == 0 && !(status.st_mode & 04000));
        CHECK(access("directory/two", F_OK) < 0 && errno == EACCES);
        close(make("theirs", "z"));
        CHECK(stat("theirs", &status) == 0 && status.st_uid == 2000 && status.st_gid == 2000);
        CHECK(chmod("owned", 0777) < 0 && errno == EPERM);
        _exit(0);
    }
    int result;
    CHECK(waitpid(child, &result, 0) == child && result == 0);
    close(fd);
}

// Extended attributes, with those that overlayfs needs, and file capabilities.
static void posix_attributes(void)
{
    char text[256];
    static const unsigned char capability[20] = {1, 0, 0, 2, 0, 4};
    if (setxattr("owned", "user.mine", "value", 5, 0) < 0 && errno == EOPNOTSUPP) {
        printf("xattr=none\n");
    } else {
        CHECK(getxattr("owned", "user.mine", text, sizeof(text)) == 5 && memcmp(text, "value", 5) == 0);
        CHECK(setxattr("directory", "trusted.overlay.opaque", "y", 1, 0) == 0 && getxattr("directory", "trusted.overlay.opaque", text, sizeof(text)) == 1);
        CHECK(listxattr("directory", text, sizeof(text)) == sizeof("trusted.overlay.opaque"));
        CHECK(removexattr("owned", "user.mine") == 0 && getxattr("owned", "user.mine", text, sizeof(text)) < 0 && errno == ENODATA);
        CHECK(setxattr("owned", "security.capability", capability, sizeof(capability), 0) == 0 && getxattr("owned", "security.capability", text, sizeof(text)) == 20);
        printf("xattr=kept\n");
    }
}

// Locks, against another process.
static void posix_locks(void)
{
    int fd = open("named", O_RDWR);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    CHECK(fcntl(fd, F_SETLK, &lock) == 0 && !is_free("named", 0));
    lock.l_type = F_UNLCK;
    CHECK(fcntl(fd, F_SETLK, &lock) == 0 && is_free("named", 0));
    deadlock(fd, "named");
    CHECK(flock(fd, LOCK_EX) == 0 && !is_free("named", 1) && flock(fd, LOCK_UN) == 0 && is_free("named", 1));
    close(fd);
}

// Room: holes, and what is allocated and copied.
static void posix_room(void)
{
    char text[4];
    int fd = open("named", O_RDWR);
    CHECK(ftruncate(fd, 1 << 20) == 0 && pwrite(fd, "data", 4, 512 << 10) == 4 && fsync(fd) == 0);
    CHECK(lseek(fd, 4096, SEEK_DATA) == 512 << 10 && lseek(fd, 512 << 10, SEEK_HOLE) > 512 << 10);
    CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 512 << 10, 4096) == 0 && pread(fd, text, 4, 512 << 10) == 4 && memcmp(text, "\0\0\0\0", 4) == 0);
    int copy = open("copy", O_RDWR | O_CREAT, 0644);
    off_t from = 0;
    CHECK(copy_file_range(fd, &from, copy, NULL, 3, 0) == 3 && holds("copy", "tmp"));
    close(copy);
    close(fd);
}

// A mapping and the file are the same.
static void posix_mapping(void)
{
    char text[13];
    int fd = make("mapped", "0123456789");
    CHECK(ftruncate(fd, 8192) == 0);
    char *mapped = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(mapped != MAP_FAILED && mapped[9] == '9');
    memcpy(mapped + 4090, "across a page", 13);
    CHECK(msync(mapped, 8192, MS_SYNC) == 0 && pread(fd, text, 13, 4090) == 13 && memcmp(text, "across a page", 13) == 0);
    CHECK(munmap(mapped, 8192) == 0);
    close(fd);
}

static void posix(const char *root)
{
    CHECK(chdir(root) == 0);
    posix_names();
    posix_links();
    posix_owners();
    posix_attributes();
    posix_locks();
    posix_room();
    posix_mapping();
    printf("posix=ok\n");
}

static sigjmp_buf lost;

static void on_bus_error(int signal)
{
    (void)signal;
    siglongjmp(lost, 1);
}

static void cut(const char *path, int seconds)
{
    const size_t length = 4 << 20;
    static long touched, errors, reads; // static: what a longjmp comes back to is in memory
    char byte, line[16];
    int fd = open(path, O_RDWR);
    CHECK(fd >= 0);
    volatile char *mapped = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    CHECK(mapped != MAP_FAILED);
    signal(SIGBUS, on_bus_error);
    state = 42;
    printf("cut it now and then\n");
    for (double end = now() + seconds; now() < end;) {
        size_t at = below(length);
        if (sigsetjmp(lost, 1) == 0) {
            mapped[at]++;
            touched++;
        } else {
            errors++; // the guest's kernel knows that the file is shorter
        }
        if (below(4) == 0)
            reads += pread(fd, &byte, 1, at) == 1;
    }
    printf("touched=%ld\nerrors=%ld\nreads=%ld\n", touched, errors, reads);

    // What is gone for good is waited for, by a process that can be killed.
    struct stat status;
    printf("make it long\n");
    do
        CHECK(fstat(fd, &status) == 0);
    while ((size_t)status.st_size < length && usleep(100000) == 0);
    for (size_t at = 0; at < length; at += 4096)
        byte = mapped[at];
    printf("cut it for good\n");
    CHECK(fgets(line, sizeof(line), stdin));
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        byte = mapped[length - 1];
        _exit(0);
    }
    sleep(2);
    int result;
    CHECK(kill(child, SIGKILL) == 0 && waitpid(child, &result, 0) == child);
    printf("ended=%d\n", WIFSIGNALED(result) ? WTERMSIG(result) : -1);
}

int main(int count, char **arguments)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (count == 4 && strcmp(arguments[1], "files") == 0)
        files(arguments[2], atoi(arguments[3]));
    else if (count == 5 && strcmp(arguments[1], "random") == 0)
        random_operations(arguments[2], atoi(arguments[3]), strtoull(arguments[4], NULL, 0));
    else if (count == 3 && strcmp(arguments[1], "posix") == 0)
        posix(arguments[2]);
    else if (count == 4 && strcmp(arguments[1], "cut") == 0)
        cut(arguments[2], atoi(arguments[3]));
    else {
        fprintf(stderr, "usage: fstest files DIR COUNT | posix DIR | cut FILE SECONDS | random FILE SECONDS SEED\n");
        return 2;
    }
    return 0;
}
