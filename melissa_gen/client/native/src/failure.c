#include "failure.h"

#include "text.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_TEXT = 8000 }; /* bytes of a text value: a failure must fit into one message */

/* The codes that this library sends. */
static const struct {
    const char *code, *sentence;
} TEMPLATES[] = {
    {"unknown_field", "field '{field}'{hint} is not in the study; it declares {legal}"},
    {"wrong_shape", "{where}field '{field}' has the global shape {found}; the study says {expected}"},
    {"block_outside", "field '{field}': the block start {start}, extent {extent} is not inside the shape {shape}"},
    {"large_input", "the input '{field}': the block of one rank has {bytes} bytes, and at most 4294967295 can be sent; "
                    "divide it among more MPI ranks (simulation.processes), or declare it in simulation.fields"},
    {"undeclared_fields", "the fields {fields} of the study are not declared; declare every field before the loop"},
    {"missing_field", "{where}the field '{field}' is missing"},
    {"repeated_field", "{where}the field '{missing}' is missing ('{field}' was sent twice)"},
    {"undeclared_field", "{where}unknown field '{field}'{hint}; declared: {legal}"},
    {"wrong_count", "{where}field '{field}' has {count} values; this rank declared the extent {extent}"},
    {"not_finite", "{where}field '{field}' has {count} values that are NaN, infinite or too large for {dtype}, the first "
                   "at {place}"},
    {"too_many_steps", "{where}the study has {time_steps} time steps; this one is too many"},
    {"missing_input", "{where}the input '{field}' of the simulation is missing; send it before the first time step"},
    {"repeated_input", "{where}the input '{field}' was sent already; send it once per simulation"},
    {"late_input", "{where}the input '{field}' was sent after a time step; send it before the first one"},
    {"too_few_steps", "simulation {simulation} ended after {steps} of {time_steps} time steps"},
    {"unknown_parameter", "the study has no parameter '{parameter}'{hint}; it has {legal}"},
    {"given_up", "{text}"},
    {"other", "{where}{text}"},
};

struct failure failure_new(const char *code)
{
    return (struct failure){code, cJSON_CreateObject()};
}

void failure_number(struct failure *failure, const char *name, double value)
{
    cJSON_AddNumberToObject(failure->values, name, value);
}

/* A copy of at most LONGEST_TEXT bytes, without a part of a character at its end. */
static cJSON *shortened(const char *text)
{
    size_t length = strlen(text), kept = 0;
    if (length <= LONGEST_TEXT)
        return cJSON_CreateString(text);
    while (kept < LONGEST_TEXT) {
        size_t step = text_character((const unsigned char *)text + kept, length - kept);
        step = step > 0 ? step : 1;
        if (kept + step > LONGEST_TEXT)
            break;
        kept += step;
    }
    char *copy = text_format("%.*s", (int)kept, text);
    cJSON *item = copy == NULL ? NULL : cJSON_CreateString(copy);
    free(copy);
    return item;
}

void failure_text(struct failure *failure, const char *name, const char *text)
{
    cJSON_AddItemToObject(failure->values, name, shortened(text));
}

void failure_numbers(struct failure *failure, const char *name, int count, const int64_t *numbers)
{
    cJSON *list = cJSON_AddArrayToObject(failure->values, name);
    for (int i = 0; i < count; i++)
        cJSON_AddItemToArray(list, cJSON_CreateNumber((double)numbers[i]));
}

void failure_add_text(struct failure *failure, const char *name, const char *text)
{
    cJSON *list = cJSON_GetObjectItemCaseSensitive(failure->values, name);
    if (list == NULL)
        list = cJSON_AddArrayToObject(failure->values, name);
    if (text != NULL)
        cJSON_AddItemToArray(list, cJSON_CreateString(text));
}

char *failure_json(const struct failure *failure)
{
    return failure->values == NULL ? NULL : cJSON_PrintUnformatted(failure->values);
}

void failure_free(struct failure *failure)
{
    cJSON_Delete(failure->values);
    failure->values = NULL;
}

/* A text that grows; NULL once memory has run out. */
static void append(char **text, const char *more, size_t length)
{
    if (*text == NULL)
        return;
    size_t size = strlen(*text);
    char *longer = realloc(*text, size + length + 1);
    if (longer == NULL) {
        free(*text);
        *text = NULL;
        return;
    }
    memcpy(longer + size, more, length);
    longer[size + length] = '\0';
    *text = longer;
}

static void append_text(char **text, const char *more)
{
    append(text, more, strlen(more));
}

static void append_item(char **text, const cJSON *item)
{
    const char *string = cJSON_GetStringValue(item);
    char *number = string == NULL ? text_format("%.15g", item == NULL ? 0.0 : item->valuedouble) : NULL;
    if (string != NULL || number != NULL)
        append_text(text, string != NULL ? string : number);
    free(number);
}

static bool lists_names(const char *name)
{
    return strcmp(name, "legal") == 0 || strcmp(name, "fields") == 0;
}

/* Names are separated by commas, and a shape is written as Python writes a tuple. */
static void append_value(char **text, const char *name, const cJSON *value)
{
    if (!cJSON_IsArray(value)) {
        append_item(text, value);
        return;
    }
    bool names = lists_names(name);
    int count = cJSON_GetArraySize(value), n = 0;
    const cJSON *item;
    append_text(text, names ? (count == 0 ? "none" : "") : "(");
    cJSON_ArrayForEach(item, value) {
        append_text(text, n++ > 0 ? ", " : "");
        append_item(text, item);
    }
    append_text(text, names ? "" : count == 1 ? ",)" : ")");
}

static void append_where(char **text, const cJSON *values)
{
    const cJSON *simulation = cJSON_GetObjectItemCaseSensitive(values, "simulation");
    const cJSON *step = cJSON_GetObjectItemCaseSensitive(values, "step");
    if (simulation == NULL || step == NULL)
        return;
    append_text(text, "simulation ");
    append_item(text, simulation);
    append_text(text, ", time step ");
    append_item(text, step);
    append_text(text, ": ");
}

char *failure_sentence(const struct failure *failure)
{
    const char *rest = NULL;
    for (size_t t = 0; t < sizeof TEMPLATES / sizeof *TEMPLATES; t++)
        if (strcmp(TEMPLATES[t].code, failure->code) == 0)
            rest = TEMPLATES[t].sentence;
    if (rest == NULL)
        return text_copy(failure->code);
    char *text = text_copy("");
    for (const char *open; (open = strchr(rest, '{')) != NULL;) {
        append(&text, rest, (size_t)(open - rest));
        const char *close = strchr(open, '}');
        char name[32] = "";
        memcpy(name, open + 1, (size_t)(close - open - 1));
        if (strcmp(name, "where") == 0)
            append_where(&text, failure->values);
        else if (strcmp(name, "hint") != 0) /* only the server looks for a similar name */
            append_value(&text, name, cJSON_GetObjectItemCaseSensitive(failure->values, name));
        rest = close + 1;
    }
    append_text(&text, rest);
    return text;
}
