! Solver of the heat equation (../README.md) in Fortran, with the same scheme, options and fields as ../heat.py.
!
! A field is u(j, i) with j along y and i along x, so that the memory order is that of Python. Each rank owns a range of
! i. The direct solve multiplies by the matrix of the sine transform, along y on whole lines and along x after an
! all-to-all exchange. This is fast enough for meshes of a few hundred cells.
!
!     mpifort -O3 heat.f90 $(pkg-config --cflags --libs melissa_gen_fortran) -o heat
module heat_solver
    use, intrinsic :: iso_fortran_env, only: dp => real64, error_unit
    use mpi_f08
    implicit none
    private
    public :: solver_t, temperatures_t, refuse

    type :: temperatures_t
        real(dp) :: initial = 300, left = 100, right = 200, bottom = 400, top = 500
    end type temperatures_t

    type :: solver_t
        integer :: n, rank, ranks
        integer :: first, columns                  ! this rank's range of i (and of j, during the solve along x)
        real(dp), allocatable :: u(:, :)           ! (0:n+1, 0:columns+1): one ghost cell around
        real(dp), allocatable :: sine(:, :)        ! (k, j), orthonormal
        real(dp), allocatable :: inverse(:, :)     ! its transpose
        real(dp), allocatable :: symbol(:, :)      ! (j of this rank, k along x)
        real(dp), allocatable :: block(:, :), lines(:, :), packed(:)
        real(dp), allocatable :: across(:, :), along(:, :)
        integer, allocatable :: here(:), here_at(:), there(:), there_at(:) ! counts and offsets of the exchange
    contains
        procedure :: set_up, begin, step
        procedure, private :: fill_ghosts, solve, pack
    end type solver_t

contains

    ! Exits all ranks after an error that occurs on every rank. MPI_Abort is not needed, because no rank waits for
    ! another, and it could suppress the message.
    subroutine refuse(message)
        character(*), intent(in) :: message
        integer :: rank
        call MPI_Comm_rank(MPI_COMM_WORLD, rank)
        if (rank == 0) then
            write (error_unit, "(2a)") "heat: error: ", message
            flush (error_unit)
        end if
        call MPI_Finalize()
        stop 2, quiet=.true.
    end subroutine refuse

    pure integer function cut(size, parts, part)
        integer, intent(in) :: size, parts, part
        cut = size*part/parts
    end function cut

    subroutine set_up(self, n, diffusivity, time_step, theta)
        class(solver_t), intent(out) :: self
        integer, intent(in) :: n
        real(dp), intent(in) :: diffusivity, time_step, theta
        real(dp), parameter :: pi = acos(-1.0_dp)
        real(dp) :: number, along_x, along_y
        integer :: j, k, r, from, count

        call MPI_Comm_rank(MPI_COMM_WORLD, self%rank)
        call MPI_Comm_size(MPI_COMM_WORLD, self%ranks)
        if (self%ranks > n) &
            call refuse("there are more MPI ranks than rows of cells: start fewer ranks or refine the mesh")
        self%n = n
        self%first = cut(n, self%ranks, self%rank)
        self%columns = cut(n, self%ranks, self%rank + 1) - self%first
        allocate (self%u(0:n + 1, 0:self%columns + 1), self%sine(n, n), self%inverse(n, n), &
                  self%symbol(self%columns, n))
        allocate (self%block(n, self%columns), self%lines(n, self%columns), self%packed(n*self%columns))
        allocate (self%across(self%columns, n), self%along(self%columns, n))
        allocate (self%here(self%ranks), self%here_at(self%ranks), self%there(self%ranks), self%there_at(self%ranks))
        do r = 1, self%ranks
            from = cut(n, self%ranks, r - 1)
            count = cut(n, self%ranks, r) - from
            self%here(r) = count*self%columns ! j of rank r, in my i
            self%here_at(r) = from*self%columns
            self%there(r) = self%columns*count ! my j, in i of rank r
            self%there_at(r) = self%columns*from
        end do

        ! The orthonormal sine transform of type II: its rows are the eigenvectors of -h^2 d2/dx2 with ghost cells -u.
        do j = 1, n
            do k = 1, n
                self%sine(k, j) = sqrt(merge(1.0_dp, 2.0_dp, k == n)/n)*sin(pi*mod(k*(2*j - 1), 4*n)/(2.0_dp*n))
            end do
        end do
        self%inverse = transpose(self%sine)
        number = diffusivity*time_step*real(n, dp)**2
        do k = 1, n
            do j = 1, self%columns
                along_x = 4*sin(pi*k/(2.0_dp*n))**2
                along_y = 4*sin(pi*(self%first + j)/(2.0_dp*n))**2
                self%symbol(j, k) = number/(1 + theta*number*(along_x + along_y))
            end do
        end do
    end subroutine set_up

    subroutine begin(self, temperatures)
        class(solver_t), intent(inout) :: self
        type(temperatures_t), intent(in) :: temperatures
        self%u = temperatures%initial
    end subroutine begin

    ! Advances one time step and writes this rank's cells to `field`.
    subroutine step(self, temperatures, field)
        class(solver_t), intent(inout) :: self
        type(temperatures_t), intent(in) :: temperatures
        real(dp), intent(out) :: field(:, :)
        integer :: n, c
        n = self%n
        c = self%columns
        call self%fill_ghosts(temperatures)
        self%block = self%u(1:n, 2:c + 1) + self%u(1:n, 0:c - 1) + self%u(2:n + 1, 1:c) + self%u(0:n - 1, 1:c) &
                     - 4*self%u(1:n, 1:c)
        call self%solve()
        self%u(1:n, 1:c) = self%u(1:n, 1:c) + self%block
        field = self%u(1:n, 1:c)
    end subroutine step

    ! Fills ghost cells from the neighbors. At a wall, the mean of cell and ghost cell is the wall temperature.
    subroutine fill_ghosts(self, temperatures)
        class(solver_t), intent(inout) :: self
        type(temperatures_t), intent(in) :: temperatures
        integer :: n, c, below, above
        n = self%n
        c = self%columns
        below = merge(MPI_PROC_NULL, self%rank - 1, self%rank == 0)
        above = merge(MPI_PROC_NULL, self%rank + 1, self%rank == self%ranks - 1)
        call MPI_Sendrecv(self%u(:, 1), n + 2, MPI_DOUBLE_PRECISION, below, 0, &
                          self%u(:, c + 1), n + 2, MPI_DOUBLE_PRECISION, above, 0, MPI_COMM_WORLD, MPI_STATUS_IGNORE)
        call MPI_Sendrecv(self%u(:, c), n + 2, MPI_DOUBLE_PRECISION, above, 1, &
                          self%u(:, 0), n + 2, MPI_DOUBLE_PRECISION, below, 1, MPI_COMM_WORLD, MPI_STATUS_IGNORE)
        if (below == MPI_PROC_NULL) self%u(1:n, 0) = 2*temperatures%left - self%u(1:n, 1)
        if (above == MPI_PROC_NULL) self%u(1:n, c + 1) = 2*temperatures%right - self%u(1:n, c)
        self%u(0, 1:c) = 2*temperatures%bottom - self%u(1, 1:c)
        self%u(n + 1, 1:c) = 2*temperatures%top - self%u(n, 1:c)
    end subroutine fill_ghosts

    ! Replaces h^2 L u in `block` by the increment of u.
    subroutine solve(self)
        class(solver_t), intent(inout) :: self
        self%lines = matmul(self%sine, self%block)
        call self%pack(.true.)
        call MPI_Alltoallv(self%packed, self%here, self%here_at, MPI_DOUBLE_PRECISION, &
                           self%across, self%there, self%there_at, MPI_DOUBLE_PRECISION, MPI_COMM_WORLD)
        self%along = self%symbol*matmul(self%across, self%inverse)
        self%across = matmul(self%along, self%sine)
        call MPI_Alltoallv(self%across, self%there, self%there_at, MPI_DOUBLE_PRECISION, &
                           self%packed, self%here, self%here_at, MPI_DOUBLE_PRECISION, MPI_COMM_WORLD)
        call self%pack(.false.)
        self%block = matmul(self%inverse, self%lines)
    end subroutine solve

    ! Copies between `lines` and contiguous pieces for the range of j of each rank.
    subroutine pack(self, forward)
        class(solver_t), intent(inout) :: self
        logical, intent(in) :: forward
        integer :: r, i, from, count, at
        at = 0
        do r = 1, self%ranks
            from = cut(self%n, self%ranks, r - 1)
            count = cut(self%n, self%ranks, r) - from
            do i = 1, self%columns
                if (forward) then
                    self%packed(at + 1:at + count) = self%lines(from + 1:from + count, i)
                else
                    self%lines(from + 1:from + count, i) = self%packed(at + 1:at + count)
                end if
                at = at + count
            end do
        end do
    end subroutine pack

end module heat_solver

program heat
    use, intrinsic :: iso_fortran_env, only: dp => real64, error_unit
    use heat_solver
    use melissa_gen
    use mpi_f08
    implicit none

    type(mg_client) :: client
    type(solver_t) :: solver
    type(temperatures_t) :: temperatures
    real(dp), allocatable :: field(:, :)
    real(dp) :: time_step = 0.01_dp, diffusivity = 1, theta = 1
    integer :: mesh = 100, steps = 100, simulation, count, error

    call MPI_Init()
    call command_line()
    call solver%set_up(mesh, diffusivity, time_step, theta)
    allocate (field(mesh, solver%columns))

    call mg_open(client, MPI_COMM_WORLD%MPI_VAL, error)
    call check(error)
    call mg_field(client, "temperature", shape=[mesh, mesh], start=[1, solver%first + 1], &
                  extent=[mesh, solver%columns], error=error)
    call check(error)
    do
        call mg_next(client, simulation, error)
        call check(error)
        if (simulation < 0) exit
        temperatures = temperatures_t(kelvin("initial_temperature"), kelvin("left_temperature"), &
                                      kelvin("right_temperature"), kelvin("bottom_temperature"), &
                                      kelvin("top_temperature"))
        call solver%begin(temperatures)
        do count = 1, steps
            call solver%step(temperatures, field)
            call mg_send(client, "temperature", field, error)
            call check(error)
        end do
    end do
    call mg_close(client, error)
    call MPI_Finalize()

contains

    subroutine check(error)
        integer, intent(in) :: error
        integer :: ignored
        if (error == MG_OK) return
        write (error_unit, "(2a)") "heat: error: ", mg_error(client)
        flush (error_unit)
        call mg_close(client, ignored) ! tells the server that the simulation failed
        call MPI_Abort(MPI_COMM_WORLD, error)
    end subroutine check

    function kelvin(name) result(value)
        character(*), intent(in) :: name
        real(dp) :: value
        call mg_parameter(client, name, value, error)
        call check(error)
    end function kelvin

    subroutine command_line()
        character(:), allocatable :: option, text
        integer :: i
        do i = 1, command_argument_count(), 2
            option = argument(i)
            text = argument(i + 1)
            select case (option)
            case ("--mesh")
                mesh = nint(positive(option, text))
            case ("--steps")
                steps = nint(positive(option, text))
            case ("--time-step")
                time_step = positive(option, text)
            case ("--diffusivity")
                diffusivity = positive(option, text)
            case ("--theta")
                theta = positive(option, text)
            case default
                call refuse("unknown option '"//option// &
                         "'; legal: --mesh N --steps N --time-step S --diffusivity A --theta X")
            end select
        end do
        if (theta < 0.5_dp .or. theta > 1) &
            call refuse("theta must lie between 0.5 (Crank-Nicolson) and 1 (backward Euler)")
    end subroutine command_line

    function argument(i) result(text)
        integer, intent(in) :: i
        character(:), allocatable :: text
        integer :: length
        call get_command_argument(i, length=length)
        allocate (character(length) :: text)
        call get_command_argument(i, text)
    end function argument

    real(dp) function positive(option, text)
        character(*), intent(in) :: option, text
        integer :: status
        read (text, *, iostat=status) positive
        if (status /= 0 .or. .not. (positive > 0 .and. positive < huge(positive))) &
            call refuse(option//": '"//text//"' is not a positive number")
    end function positive

end program heat
