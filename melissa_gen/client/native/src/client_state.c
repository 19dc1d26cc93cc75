#include "client_state.h"

#include "text.h"

#include <stdlib.h>

int client_error(mg_client *client, int status, const char *format, ...)
{
    va_list values;
    va_start(values, format);
    char *sentence = text_format_list(format, values);
    va_end(values);
    return client_error_from(client, status, sentence == NULL ? wire_no_memory : sentence);
}

int client_error_from(mg_client *client, int status, char *sentence)
{
    char *before = client->error;
    client->error = sentence;
    wire_free(before);
    client->failure_code = NULL;
    free(client->failure_values);
    client->failure_values = NULL;
    return status;
}

int client_fail(mg_client *client, int status, struct failure failure)
{
    char *sentence = failure_sentence(&failure), *values = failure_json(&failure);
    client_error_from(client, status, sentence == NULL ? wire_no_memory : sentence);
    client->failure_code = values == NULL ? NULL : failure.code;
    client->failure_values = values;
    failure_free(&failure);
    return status;
}
