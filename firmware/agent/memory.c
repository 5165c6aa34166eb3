/* What the kernel has killed for want of memory. /proc/vmstat counts what a memory cgroup's limit kills, too, and names nobody. The kernel's log tells both. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define OF_THE_KERNEL 8 /* a record's first number is below, unless a program has written the record */
#define MOMENT 200      /* milliseconds until a process that was killed is in the log */

static unsigned long count_kills(void)
{
    char line[128];
    unsigned long count = 0;
    FILE *file = fopen("/proc/vmstat", "re");
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "oom_kill %lu", &count) == 1)
            break;
    if (file)
        fclose(file);
    return count;
}

/* From now on. */
void watch_memory(struct memory *memory)
{
    *memory = (struct memory){ .log = is_guest ? open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC) : -1, .before = count_kills() };
    if (memory->log >= 0)
        lseek(memory->log, 0, SEEK_END);
}

/* Linux mm/oom_kill.c, __oom_kill_process: "Out of memory: Killed process 57 (tail) …", for a cgroup "Memory cgroup out of memory: Killed process …". It writes that for each one,
   other than "oom-kill:constraint=…", which it leaves out when there are many. */
static void take_record(struct memory *memory, const char *record, pid_t command)
{
    static const char of_guest[] = "Out of memory", killed[] = ": Killed process ";
    unsigned int origin = OF_THE_KERNEL;
    int id = 0;
    const char *text = strchr(record, ';'), *rest = text ? strstr(text, killed) : NULL;
    if (!rest || sscanf(record, "%u", &origin) != 1 || origin >= OF_THE_KERNEL || sscanf(rest + sizeof killed - 1, "%d (", &id) != 1)
        return;
    memory->told++;
    if (strncmp(text + 1, of_guest, sizeof of_guest - 1) != 0)
        return;
    memory->kills++;
    memory->has_killed_command |= id == command;
}

static void read_log(struct memory *memory, pid_t command)
{
    static char record[MAX_RECORD];
    for (int count = 0; count < MAX_RECORDS && read_record(memory->log, record, sizeof record); count++)
        take_record(memory, record, command);
}

/* A process gets its signal before the kernel writes the line, and may be gone by then: all that were counted are waited for. */
void find_kills(struct memory *memory, pid_t command)
{
    if (memory->log < 0)
        return;
    unsigned long now = count_kills(), counted = now > memory->before ? now - memory->before : 0;
    read_log(memory, command);
    for (int waited = 0; waited < MOMENT && memory->told < counted; waited++) {
        usleep(1000);
        read_log(memory, command);
    }
}
