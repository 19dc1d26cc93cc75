/* A solver that does one thing right or wrong, as its first argument says; compiles as C and as C++. The study that it
 * expects: fields `a` (float32, 4 x 6) and `b` (float64, 3), three time steps, parameters `p` and `q`. It computes a in
 * double and b in float, reuses its arrays at once, and prints the error codes and sentences that it meets. */
#include <locale.h>
#include <math.h>
#include <melissa_gen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *mode;

static int is(const char *name)
{
    return strcmp(mode, name) == 0;
}

static int ends(mg_client *client, int status)
{
    printf("%d %s\n", status, mg_error(client));
    int closed = mg_close(client);
    printf("closed %d\n", closed);
    return status;
}

static int has_inputs(void)
{
    return strncmp(mode, "input", 5) == 0;
}

/* Sends the input k, once unless the mode says otherwise. */
static int send_input(mg_client *client, int64_t simulation)
{
    float k[6];
    for (int i = 0; i < 6; i++)
        k[i] = (float)(10 * simulation + i);
    if (is("input-nan"))
        k[4] = NAN;
    int status = is("input-count") ? mg_send_array(client, "k", MG_FLOAT32, 5, k) : mg_send(client, "k", k);
    memset(k, 0, sizeof k);
    return status == MG_OK && is("input-twice") ? mg_send(client, "k", k) : status;
}

static int declare(mg_client *client)
{
    const int64_t a[2] = {4, is("wrong-shape") ? 7 : 6}, b[1] = {3}, outside[2] = {2, 0};
    int status = mg_field(client, is("unknown-field") ? "aa" : "a", MG_FLOAT64, 2, a, NULL, NULL);
    if (status == MG_OK && is("outside"))
        status = mg_field(client, "a", MG_FLOAT64, 2, a, outside, a);
    if (status != MG_OK || is("undeclared"))
        return status;
    const int64_t k[2] = {is("input-large") ? 65536 : 2, is("input-large") ? 65536 : 3};
    if (has_inputs() && (status = mg_field(client, "k", MG_FLOAT32, 2, k, NULL, NULL)) != MG_OK)
        return status;
    const int64_t end[1] = {3}, none[1] = {0};
    return mg_field(client, "b", MG_FLOAT32, 1, b, is("no-part") ? end : NULL, is("no-part") ? none : NULL);
}

/* Sends a from within an array with halo cells whose first index runs fastest, and b backwards from every second value. */
static int send_strided(mg_client *client, int64_t simulation, int step, double p)
{
    static double halo[8][6];
    static float wide[6];
    const int64_t a[2] = {1, 6}, b[1] = {-2};
    memset(halo, 255, sizeof halo);
    for (int i = 0; i < 24; i++)
        halo[i % 6 + 1][i / 6 + 1] = 1000.0 * (double)simulation + 100.0 * step + i;
    for (int i = 0; i < 6; i++)
        wide[i] = i % 2 == 1 ? (float)(p + step) : NAN;
    int status = mg_send_strided(client, "a", a, &halo[1][1]);
    return status != MG_OK ? status : mg_send_strided(client, "b", b, &wide[5]);
}

static int send_step(mg_client *client, int64_t simulation, int step, double p)
{
    static double a[24];
    static float b[3];
    for (int i = 0; i < 24; i++)
        a[i] = 1000.0 * (double)simulation + 100.0 * step + i;
    for (int i = 0; i < 3; i++)
        b[i] = (float)(p + step);
    if (is("nan") && simulation == 1 && step == 2)
        a[3] = NAN, a[4] = INFINITY;
    if (is("overflow"))
        a[0] = 1e300;
    if (is("unknown-send"))
        return mg_send(client, "c", a);
    int status = is("wrong-count") ? mg_send_array(client, "a", MG_FLOAT64, 23, a) : mg_send(client, "a", a);
    memset(a, 0, sizeof a);
    if (status == MG_OK && is("twice"))
        status = mg_send(client, "a", a);
    if (status == MG_OK && !(is("half-step") && step == 2))
        status = mg_send(client, "b", is("no-part") ? NULL : b);
    memset(b, 0, sizeof b);
    return status;
}

int main(int argc, char **argv)
{
    mode = argc > 1 ? argv[1] : "good";
    setlocale(LC_ALL, "");
    mg_client *client;
    int64_t simulation;
    int status = mg_open(&client);
    if (status == MG_OK)
        status = declare(client);
    while (status == MG_OK && (status = mg_next(client, &simulation)) == MG_OK && simulation >= 0) {
        double p = 0, q = 0;
        status = mg_parameter(client, "p", &p);
        if (status == MG_OK)
            status = mg_parameter(client, is("unknown-parameter") ? "r" : "q", &q);
        int64_t whole = 0;
        if (status == MG_OK && is("integer"))
            status = mg_parameter_integer(client, "q", &whole);
        if (status == MG_OK && is("integer"))
            printf("q %lld\n", (long long)whole);
        int steps = is("short") ? 2 : is("too-many") ? 4 : 3;
        for (int step = 0; status == MG_OK && step < steps; step++) {
            if (has_inputs() && !is("input-missing") && (step == 0 || is("input-late")))
                status = send_input(client, simulation);
            if (status != MG_OK)
                break;
            if (is("fail") && simulation == 0 && step == 1) {
                status = mg_fail(client, "diverged");
                break;
            }
            status = is("strided") ? send_strided(client, simulation, step, p) : send_step(client, simulation, step, p);
            while (is("stuck"))
                ;
        }
        if (is("nan") && status == MG_ERROR_SIMULATION) {
            printf("%d %s\n", status, mg_error(client));
            status = MG_OK; /* and on with the next one */
        }
        if (is("leave") && status == MG_OK)
            break;
        if (is("leave-early")) {
            printf("closed %d\n", mg_close(client));
            return 0;
        }
    }
    return ends(client, status);
}
