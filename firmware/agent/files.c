/* Files of the root, whose names can lead to anything. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Into a file of /proc or of a cgroup, which may not be there. */
void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    (void)!write(fd, text, strlen(text));
    close(fd);
}

/* Opens a regular file, as open(2) does. Anything else is EINVAL and is not opened: a FIFO that nobody else opens would hold the agent for ever, and a device may do something.
   What takes the file's place meanwhile does not hold the agent either. Returns -1 for an error. */
int open_regular(const char *path, int flags)
{
    struct stat status;
    if (stat(path, &status) == 0 && !S_ISREG(status.st_mode)) {
        errno = EINVAL;
        return -1;
    }
    int fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0644);
    if (fd >= 0 && (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))) {
        close(fd);
        errno = EINVAL;
        return -1;
    }
    return fd;
}

/* The same for a stream with the mode of fopen(3). Returns NULL for an error. */
FILE *open_lines(const char *path, int flags, const char *mode)
{
    int fd = open_regular(path, flags);
    FILE *file = fd < 0 ? NULL : fdopen(fd, mode);
    if (fd >= 0 && !file)
        close(fd);
    return file;
}
