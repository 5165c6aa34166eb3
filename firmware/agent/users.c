/* Users by /etc/passwd and /etc/group, which are read here: a static program has no other ways of the C library. */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define PASSWD_FIELDS 7
#define GROUP_FIELDS 4

/* Splits at colons. Returns how many fields there are. */
static size_t split(char *line, char **fields, size_t count)
{
    size_t found = 0;
    line[strcspn(line, "\n")] = 0;
    for (char *next = line; next && found < count; found++)
        fields[found] = strsep(&next, ":");
    return found;
}

static bool to_number(const char *text, unsigned int *number)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end || errno || value >= 0xffffffffUL)
        return false;
    *number = (unsigned int)value;
    return true;
}

static void copy(char *target, size_t size, const char *text)
{
    snprintf(target, size, "%s", text);
}

static bool find_in_passwd(const char *name, bool is_number, unsigned int number, struct user *user)
{
    char *line = NULL, *fields[PASSWD_FIELDS];
    size_t size = 0;
    bool found = false;
    FILE *file = open_lines("/etc/passwd", O_RDONLY, "r");
    while (file && !found && getline(&line, &size, file) > 0) {
        unsigned int id, group;
        if (split(line, fields, PASSWD_FIELDS) != PASSWD_FIELDS || !to_number(fields[2], &id) || !to_number(fields[3], &group))
            continue;
        found = is_number ? id == number : strcmp(fields[0], name) == 0;
        if (found) {
            user->id = id;
            user->group = group;
            copy(user->name, sizeof user->name, fields[0]);
            copy(user->home, sizeof user->home, fields[5]);
            copy(user->shell, sizeof user->shell, fields[6]);
        }
    }
    if (file)
        fclose(file);
    free(line);
    return found;
}

static bool is_member(char *members, const char *name)
{
    for (char *next = members; next;)
        if (strcmp(strsep(&next, ","), name) == 0)
            return true;
    return false;
}

/* The user's groups; or, with group_name, that group alone, as the main one. */
static bool find_in_group(struct user *user, const char *group_name)
{
    char *line = NULL, *fields[GROUP_FIELDS]; /* a group can have any number of members */
    size_t size = 0;
    bool found = false;
    FILE *file = open_lines("/etc/group", O_RDONLY, "r");
    while (file && getline(&line, &size, file) > 0) {
        unsigned int id;
        if (split(line, fields, GROUP_FIELDS) != GROUP_FIELDS || !to_number(fields[2], &id))
            continue;
        if (group_name && strcmp(fields[0], group_name) == 0) {
            user->group = id;
            found = true;
        } else if (!group_name && is_member(fields[3], user->name)) {
            gid_t *groups = realloc(user->groups, (user->group_count + 1) * sizeof *groups);
            if (!groups)
                break;
            user->groups = groups;
            groups[user->group_count++] = id;
        }
    }
    if (file)
        fclose(file);
    free(line);
    return found;
}

/* text: NAME or UID, then perhaps :GROUP, a name or a number. A number need not be in any file. */
bool find_user(const char *text, struct user *user)
{
    char name[sizeof user->name];
    const char *colon = strchr(text, ':');
    size_t length = colon ? (size_t)(colon - text) : strlen(text);
    if (length >= sizeof name)
        return false;
    memcpy(name, text, length);
    name[length] = 0;
    *user = (struct user){ .home = "/", .shell = "/bin/sh" };
    unsigned int number = 0;
    bool is_number = to_number(name, &number);
    if (!find_in_passwd(name, is_number, number, user)) {
        if (!is_number && strcmp(name, "root") != 0)
            return false;
        user->id = user->group = number; /* root is 0 where there is no such file */
        copy(user->name, sizeof user->name, name);
        if (number == 0)
            copy(user->home, sizeof user->home, "/root");
    }
    if (colon) {
        unsigned int group;
        if (to_number(colon + 1, &group))
            user->group = group;
        else if (!find_in_group(user, colon + 1))
            return false;
        return true;
    }
    find_in_group(user, NULL);
    return true;
}
