/* The calls of melissa_gen.h that give the parameters of a simulation. */
#include "client_state.h"

#include <math.h>
#include <string.h>

/* Sets *index to the number of a parameter. */
static int find_parameter(mg_client *client, const char *name, uint16_t *index)
{
    if (!client->running)
        return client_error(client, MG_ERROR_USAGE, "mg_parameter: no simulation is under way; call mg_next first");
    for (*index = 0; *index < client->welcome.parameters; ++*index)
        if (strcmp(client->welcome.parameter[*index].name, name) == 0)
            return MG_OK;
    struct failure failure = failure_new("unknown_parameter");
    failure_text(&failure, "parameter", name);
    failure_add_text(&failure, "legal", NULL);
    for (uint16_t p = 0; p < client->welcome.parameters; p++)
        failure_add_text(&failure, "legal", client->welcome.parameter[p].name);
    return client_fail(client, MG_ERROR_USAGE, failure);
}

int mg_parameter(mg_client *client, const char *name, double *value)
{
    if (client == NULL || name == NULL || value == NULL)
        return MG_ERROR_USAGE;
    uint16_t index = 0;
    int status = find_parameter(client, name, &index);
    if (status == MG_OK)
        *value = client->answer[3 + index];
    return status;
}

int mg_parameter_integer(mg_client *client, const char *name, int64_t *value)
{
    if (client == NULL || name == NULL || value == NULL)
        return MG_ERROR_USAGE;
    uint16_t index = 0;
    int status = find_parameter(client, name, &index);
    if (status != MG_OK)
        return status;
    if (client->welcome.parameter[index].type != WIRE_INTEGER)
        return client_error(client, MG_ERROR_USAGE,
                            "the parameter '%s' is a real number in the study; read it as a real number, or declare "
                            "it with the distribution integer",
                            name);
    *value = llround(client->answer[3 + index]);
    return MG_OK;
}
