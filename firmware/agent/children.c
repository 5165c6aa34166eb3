/* The processes that a command has started, wherever they went: to another process group or session, or to no parent. */
#include "agent.h"

#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

/* From now on a descendant that loses its parent becomes a child of this process. */
void adopt_descendants(void)
{
    prctl(PR_SET_CHILD_SUBREAPER, 1);
}

/* Returns 0 if there is no such process. */
static pid_t parent_of(pid_t id)
{
    char path[64], text[512];
    int parent = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)id);
    FILE *file = fopen(path, "re");
    if (!file)
        return 0;
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    fclose(file);
    char *name_end = strrchr(text, ')'); /* the name may have anything in it */
    if (name_end)
        sscanf(name_end, ") %*c %d", &parent);
    return parent;
}

/* Their own children are this process's next, and are there when SIGCHLD tells of the end of these. Returns how many there are. */
int kill_children(void)
{
    int count = 0;
    DIR *processes = opendir("/proc");
    struct dirent *entry;
    while (processes && (entry = readdir(processes))) {
        pid_t id = atoi(entry->d_name);
        if (id > 0 && parent_of(id) == getpid()) {
            kill(id, SIGKILL);
            count++;
        }
    }
    if (processes)
        closedir(processes);
    return count;
}

/* One generation after the other, until there is none, or one that cannot be killed. */
void kill_descendants(void)
{
    for (int waited = 0; waited < LAST_MOMENT && kill_children() > 0; waited++) {
        usleep(1000);
        while (waitpid(-1, NULL, WNOHANG) > 0)
            ;
    }
}
