/* Reads the command that START asks for. */
#include "agent.h"
#include "protocol.h"

#include <stdlib.h>
#include <string.h>

/* Texts stand one after the other, each ended by a null byte. Returns NULL if there are no more. */
static char *next_string(char **next, const char *end)
{
    char *text = *next;
    size_t length = strnlen(text, end - text);
    if (text >= end || text + length >= end)
        return NULL;
    *next = text + length + 1;
    return text;
}

static char **next_strings(char **next, const char *end, uint32_t count)
{
    if (count > (size_t)(end - *next))
        return NULL;
    char **strings = calloc(count + 1, sizeof *strings);
    for (uint32_t i = 0; strings && i < count; i++)
        if (!(strings[i] = next_string(next, end)))
            return NULL;
    return strings;
}

/* The request points into data. Returns false if the frame is malformed. */
bool parse_request(char *data, uint32_t length, struct request *request)
{
    struct start start;
    if (length < sizeof start)
        return false;
    memcpy(&start, data, sizeof start);
    char *next = data + sizeof start;
    const char *end = data + length;
    if (!(start.flags & START_TERMINAL))
        start.flags &= ~START_TERMINAL_ERROR;
    else
        start.flags &= ~START_ERROR_IS_OUTPUT;
    *request = (struct request){ .flags = start.flags, .rows = start.rows, .columns = start.columns, .umask = start.umask & 0777 };
    return (request->directory = next_string(&next, end)) && (request->user = next_string(&next, end))
        && (request->arguments = next_strings(&next, end, start.arguments))
        && (request->environment = next_strings(&next, end, start.variables));
}
