/* Solver of the heat equation (../README.md) in C, with the same scheme, options and fields as ../heat.py.
 *
 * Each rank owns rows of cells (i, along x). The direct solve multiplies by the matrix of the sine transform, along y
 * on whole lines and along x after an all-to-all exchange. This is fast enough for meshes of a few hundred cells.
 *
 *     mpicc -O3 heat.c $(pkg-config --cflags --libs melissa_gen) -lm -o heat
 */
#include <getopt.h>
#include <math.h>
#include <melissa_gen.h>
#include <mpi.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { INITIAL, LEFT, RIGHT, BOTTOM, TOP, TEMPERATURES };

static const char *const NAMES[TEMPERATURES] = {"initial_temperature", "left_temperature", "right_temperature",
                                                "bottom_temperature", "top_temperature"};

struct options {
    int mesh, steps;
    double time_step, diffusivity, theta;
};

struct solver {
    int n, rank, ranks;
    int first, rows;        /* this rank's cells along x */
    int first_column, columns; /* this rank's columns during the solve along x */
    double *u;              /* rows + 2 lines of n + 2 cells: one ghost cell around */
    double *lines, *column_block, *work, *packed; /* see solve() */
    double *sine, *sine_transposed;               /* sine[k * n + j] */
    double *symbol;                               /* n x columns */
    int *row_counts, *row_starts, *column_counts, *column_starts;
};

/* Exits all ranks after an error that occurs on every rank. MPI_Abort is not needed, because no rank waits for another,
   and it could suppress the message. */
static _Noreturn void refuse(const char *format, const char *what)
{
    int rank;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    if (rank == 0) {
        fprintf(stderr, "heat: error: ");
        fprintf(stderr, format, what);
        fprintf(stderr, "\n");
    }
    MPI_Finalize();
    exit(2);
}

static void *allocate(size_t count, size_t size)
{
    void *memory = calloc(count > 0 ? count : 1, size);
    if (memory == NULL) {
        fprintf(stderr, "heat: error: out of memory\n");
        MPI_Abort(MPI_COMM_WORLD, 1);
        exit(1);
    }
    return memory;
}

/* Command line. */

static double positive(const char *text)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end != '\0' || !(value > 0.0) || isinf(value))
        refuse("'%s' is not a positive number", text);
    return value;
}

static int positive_integer(const char *text)
{
    char *end;
    long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 1 || value > 1000000)
        refuse("'%s' is not a positive integer", text);
    return (int)value;
}

static struct options parse(int argc, char **argv)
{
    static const struct option known[] = {{"mesh", required_argument, NULL, 'm'},
                                          {"steps", required_argument, NULL, 's'},
                                          {"time-step", required_argument, NULL, 't'},
                                          {"diffusivity", required_argument, NULL, 'd'},
                                          {"theta", required_argument, NULL, 'h'},
                                          {NULL, 0, NULL, 0}};
    struct options options = {100, 100, 0.01, 1.0, 1.0};
    for (int found; (found = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (found) {
        case 'm': options.mesh = positive_integer(optarg); break;
        case 's': options.steps = positive_integer(optarg); break;
        case 't': options.time_step = positive(optarg); break;
        case 'd': options.diffusivity = positive(optarg); break;
        case 'h': options.theta = positive(optarg); break;
        default: refuse("%s", "legal options: --mesh N --steps N --time-step S --diffusivity A --theta X");
        }
    if (optind < argc)
        refuse("unknown argument '%s'", argv[optind]);
    if (options.theta < 0.5 || options.theta > 1.0)
        refuse("%s", "theta must lie between 0.5 (Crank-Nicolson) and 1 (backward Euler)");
    return options;
}

/* The solver. */

static int cut(int size, int parts, int part)
{
    return (int)((long)size * part / parts);
}

static void share(struct solver *s)
{
    s->row_counts = allocate((size_t)s->ranks, sizeof(int));
    s->row_starts = allocate((size_t)s->ranks, sizeof(int));
    s->column_counts = allocate((size_t)s->ranks, sizeof(int));
    s->column_starts = allocate((size_t)s->ranks, sizeof(int));
    for (int r = 0; r < s->ranks; r++) {
        int from = cut(s->n, s->ranks, r), to = cut(s->n, s->ranks, r + 1);
        s->row_counts[r] = (to - from) * s->columns; /* rows of r, in my columns */
        s->row_starts[r] = from * s->columns;
        s->column_counts[r] = s->rows * (to - from); /* my rows, in columns of r */
        s->column_starts[r] = s->rows * from;
    }
}

static struct solver *new_solver(const struct options *options)
{
    struct solver *s = allocate(1, sizeof *s);
    int n = s->n = options->mesh;
    MPI_Comm_rank(MPI_COMM_WORLD, &s->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &s->ranks);
    if (s->ranks > n)
        refuse("%s", "there are more MPI ranks than rows of cells: start fewer ranks or refine the mesh");
    s->first = s->first_column = cut(n, s->ranks, s->rank);
    s->rows = s->columns = cut(n, s->ranks, s->rank + 1) - s->first;
    size_t block = (size_t)s->rows * (size_t)n;
    s->u = allocate(((size_t)s->rows + 2) * ((size_t)n + 2), sizeof(double));
    s->lines = allocate(block, sizeof(double));
    s->work = allocate(block, sizeof(double));
    s->packed = allocate(block, sizeof(double));
    s->column_block = allocate(block, sizeof(double));
    s->symbol = allocate(block, sizeof(double));
    s->sine = allocate((size_t)n * (size_t)n, sizeof(double));
    s->sine_transposed = allocate((size_t)n * (size_t)n, sizeof(double));
    share(s);

    /* The orthonormal sine transform of type II: its rows are the eigenvectors of -h^2 d2/dx2 with ghost cells -u. */
    const double pi = acos(-1.0);
    for (int k = 0; k < n; k++)
        for (int j = 0; j < n; j++) {
            long angle = (long)(k + 1) * (2 * j + 1) % (4L * n); /* exact integer reduction keeps sin accurate */
            double value = sqrt((k == n - 1 ? 1.0 : 2.0) / n) * sin(pi * (double)angle / (2.0 * n));
            s->sine[(size_t)k * n + j] = s->sine_transposed[(size_t)j * n + k] = value;
        }
    double number = options->diffusivity * options->time_step * n * n;
    for (int k = 0; k < n; k++)
        for (int c = 0; c < s->columns; c++) {
            double along_x = sin(pi * (k + 1) / (2.0 * n)), along_y = sin(pi * (s->first_column + c + 1) / (2.0 * n));
            double rate = 4.0 * along_x * along_x + 4.0 * along_y * along_y;
            s->symbol[(size_t)k * s->columns + c] = number / (1.0 + options->theta * number * rate);
        }
    return s;
}

static void free_solver(struct solver *s)
{
    free(s->u), free(s->lines), free(s->work), free(s->packed), free(s->column_block);
    free(s->symbol), free(s->sine), free(s->sine_transposed);
    free(s->row_counts), free(s->row_starts), free(s->column_counts), free(s->column_starts);
    free(s);
}

/* c (m x n) = a (m x k) b (k x n). Processes four rows of b at a time to reduce loads and stores of c. */
static void multiply(int m, int k, int n, const double *restrict a, const double *restrict b, double *restrict c)
{
    memset(c, 0, sizeof(double) * (size_t)m * (size_t)n);
    for (int i = 0; i < m; i++, a += k, c += n) {
        int l = 0;
        for (; l + 4 <= k; l += 4) {
            const double *b0 = b + (size_t)l * n, *b1 = b0 + n, *b2 = b1 + n, *b3 = b2 + n;
            double a0 = a[l], a1 = a[l + 1], a2 = a[l + 2], a3 = a[l + 3];
            for (int j = 0; j < n; j++)
                c[j] += a0 * b0[j] + a1 * b1[j] + a2 * b2[j] + a3 * b3[j];
        }
        for (; l < k; l++)
            for (int j = 0; j < n; j++)
                c[j] += a[l] * b[(size_t)l * n + j];
    }
}

/* Copies between this rank's rows (rows x n) and contiguous blocks of the columns of each rank. */
static void pack(const struct solver *s, double *rows, double *blocks, bool forward)
{
    for (int r = 0; r < s->ranks; r++) {
        int from = cut(s->n, s->ranks, r), count = cut(s->n, s->ranks, r + 1) - from;
        for (int i = 0; i < s->rows; i++) {
            double *line = rows + (size_t)i * s->n + from;
            double *block = blocks + s->column_starts[r] + (size_t)i * count;
            memcpy(forward ? block : line, forward ? line : block, sizeof(double) * (size_t)count);
        }
    }
}

/* Replaces h^2 L u in `lines` by the increment of u. */
static void solve(struct solver *s)
{
    int n = s->n;
    multiply(s->rows, n, n, s->lines, s->sine_transposed, s->work);
    pack(s, s->work, s->packed, true);
    MPI_Alltoallv(s->packed, s->column_counts, s->column_starts, MPI_DOUBLE, s->column_block, s->row_counts,
                  s->row_starts, MPI_DOUBLE, MPI_COMM_WORLD);
    multiply(n, n, s->columns, s->sine, s->column_block, s->work);
    for (size_t i = 0; i < (size_t)n * (size_t)s->columns; i++)
        s->work[i] *= s->symbol[i];
    multiply(n, n, s->columns, s->sine_transposed, s->work, s->column_block);
    MPI_Alltoallv(s->column_block, s->row_counts, s->row_starts, MPI_DOUBLE, s->packed, s->column_counts,
                  s->column_starts, MPI_DOUBLE, MPI_COMM_WORLD);
    pack(s, s->work, s->packed, false);
    multiply(s->rows, n, n, s->work, s->sine, s->lines);
}

/* Fills ghost cells from the neighbors. At a wall, the mean of cell and ghost cell is the wall temperature. */
static void fill_ghosts(struct solver *s, const double *temperatures)
{
    int n = s->n, width = n + 2, below = s->rank - 1, above = s->rank + 1;
    double *u = s->u, *last = u + (size_t)s->rows * width;
    if (below < 0)
        below = MPI_PROC_NULL;
    if (above == s->ranks)
        above = MPI_PROC_NULL;
    MPI_Sendrecv(u + width, width, MPI_DOUBLE, below, 0, last + width, width, MPI_DOUBLE, above, 0, MPI_COMM_WORLD,
                 MPI_STATUS_IGNORE);
    MPI_Sendrecv(last, width, MPI_DOUBLE, above, 1, u, width, MPI_DOUBLE, below, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE);
    for (int j = 1; j <= n; j++) {
        if (below == MPI_PROC_NULL)
            u[j] = 2.0 * temperatures[LEFT] - u[width + j];
        if (above == MPI_PROC_NULL)
            last[width + j] = 2.0 * temperatures[RIGHT] - last[j];
    }
    for (int i = 1; i <= s->rows; i++) {
        double *line = u + (size_t)i * width;
        line[0] = 2.0 * temperatures[BOTTOM] - line[1];
        line[n + 1] = 2.0 * temperatures[TOP] - line[n];
    }
}

static void start(struct solver *s, const double *temperatures)
{
    for (size_t i = 0; i < ((size_t)s->rows + 2) * ((size_t)s->n + 2); i++)
        s->u[i] = temperatures[INITIAL];
}

/* Advances one time step and writes this rank's cells to `field` (rows x n). */
static void step(struct solver *s, const double *temperatures, double *field)
{
    int n = s->n, width = n + 2;
    fill_ghosts(s, temperatures);
    for (int i = 0; i < s->rows; i++) {
        const double *at = s->u + (size_t)(i + 1) * width + 1;
        for (int j = 0; j < n; j++)
            s->lines[(size_t)i * n + j] =
                at[j + width] + at[j - width] + at[j + 1] + at[j - 1] - 4.0 * at[j];
    }
    solve(s);
    for (int i = 0; i < s->rows; i++)
        for (int j = 0; j < n; j++)
            field[(size_t)i * n + j] = s->u[(size_t)(i + 1) * width + 1 + j] += s->lines[(size_t)i * n + j];
}

/* The client. */

static void check(mg_client *client, int status)
{
    if (status == MG_OK)
        return;
    fprintf(stderr, "heat: error: %s\n", mg_error(client));
    mg_close(client); /* tells the server that the simulation failed */
    MPI_Abort(MPI_COMM_WORLD, status);
    exit(status);
}

int main(int argc, char **argv)
{
    MPI_Init(&argc, &argv);
    struct options options = parse(argc, argv);
    struct solver *solver = new_solver(&options);
    int64_t shape[2] = {solver->n, solver->n}, first[2] = {solver->first, 0}, extent[2] = {solver->rows, solver->n};
    double temperatures[TEMPERATURES], *field = allocate((size_t)solver->rows * (size_t)solver->n, sizeof(double));

    mg_client *client;
    int64_t simulation;
    int opened = mg_open_mpi(&client, MPI_COMM_WORLD);
    check(client, opened);
    check(client, mg_field(client, "temperature", MG_FLOAT64, 2, shape, first, extent));
    for (;;) {
        check(client, mg_next(client, &simulation));
        if (simulation < 0)
            break;
        for (int t = 0; t < TEMPERATURES; t++)
            check(client, mg_parameter(client, NAMES[t], &temperatures[t]));
        start(solver, temperatures);
        for (int count = 0; count < options.steps; count++) {
            step(solver, temperatures, field);
            check(client, mg_send(client, "temperature", field));
        }
    }
    check(NULL, mg_close(client));
    free(field);
    free_solver(solver);
    MPI_Finalize();
    return 0;
}
