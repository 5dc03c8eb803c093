/* A library as there are many: it keeps what it is at in variables of its own, and takes it for granted
 * that its input is right. */

#include <stdlib.h>
#include <string.h>

static long total;

void statement_begin(void)
{
    total = 0;
}

/* Adds the amount of a line such as "rent=-700". */
void statement_add(const char *line)
{
    const char *amount = strchr(line, '=');
    long before = total;
    /* Without a '=' this reads what is at address 1. */
    total = before + strtol(amount + 1, NULL, 10);
}

long statement_total(void)
{
    return total;
}
