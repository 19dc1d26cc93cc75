!> The client of a solver in Fortran, which streams fields to a training server. melissa_gen.h describes each call.
!>
!>     type(mg_client) :: client
!>     call mg_open(client, comm, error)      ! mpif.h: comm; mpi_f08: comm%MPI_VAL; without MPI: leave comm out
!>     call mg_field(client, "temperature", shape=[100, 100], start=[1, 51], extent=[100, 50], error=error)
!>     do
!>         call mg_next(client, simulation, error)
!>         if (error /= MG_OK .or. simulation < 0) exit
!>         call mg_send(client, "temperature", values, error)       ! at each time step
!>     end do
!>     call mg_close(client, error)
!>
!> An input of the study (simulation.inputs) is declared by mg_field and sent by mg_send, too: once per simulation, before
!> the first time step.
!>
!> Indices are those of Fortran: they start at 1, and the first index runs fastest. An array u(nx, ny) is therefore the
!> study's field of shape [ny, nx]. Values are real32 or real64, of rank 1 to 4. A section that is not contiguous is copied.
module melissa_gen
    use, intrinsic :: iso_c_binding
    use, intrinsic :: iso_fortran_env, only: int32, int64, real32, real64
    implicit none
    private

    public :: mg_client, mg_open, mg_field, mg_next, mg_parameter, mg_send, mg_fail, mg_close, mg_error

    integer, parameter, public :: MG_OK = 0, MG_ERROR_USAGE = 1, MG_ERROR_SIMULATION = 2, MG_ERROR_SERVER_LOST = 3, &
                                  MG_ERROR_SYSTEM = 4

    integer(c_int), parameter :: FLOAT32 = 0, FLOAT64 = 1

    type :: mg_client
        private
        type(c_ptr) :: handle = c_null_ptr
    end type mg_client

    interface mg_open
        module procedure open_alone, open_comm
    end interface mg_open

    interface mg_field
        module procedure field32, field64
    end interface mg_field

    interface mg_next
        module procedure next32, next64
    end interface mg_next

    !> A parameter of whole numbers can be read as an integer.
    interface mg_parameter
        module procedure parameter_real, parameter32, parameter64
    end interface mg_parameter

    interface mg_send
        module procedure send32_1, send32_2, send32_3, send32_4, send64_1, send64_2, send64_3, send64_4
    end interface mg_send

    interface
        integer(c_int) function c_open(client) bind(c, name="mg_open")
            import :: c_int, c_ptr
            type(c_ptr), intent(out) :: client
        end function c_open

        integer(c_int) function c_open_fortran(client, comm) bind(c, name="mg_open_fortran")
            import :: c_int, c_ptr
            type(c_ptr), intent(out) :: client
            integer(c_int), value :: comm
        end function c_open_fortran

        integer(c_int) function c_field(client, name, kind, dimensions, shape, start, extent) bind(c, name="mg_field")
            import :: c_int, c_int64_t, c_ptr, c_char
            type(c_ptr), value :: client
            character(kind=c_char), intent(in) :: name(*)
            integer(c_int), value :: kind, dimensions
            integer(c_int64_t), intent(in) :: shape(*), start(*), extent(*)
        end function c_field

        integer(c_int) function c_next(client, simulation) bind(c, name="mg_next")
            import :: c_int, c_int64_t, c_ptr
            type(c_ptr), value :: client
            integer(c_int64_t), intent(out) :: simulation
        end function c_next

        integer(c_int) function c_parameter(client, name, value) bind(c, name="mg_parameter")
            import :: c_int, c_double, c_ptr, c_char
            type(c_ptr), value :: client
            character(kind=c_char), intent(in) :: name(*)
            real(c_double), intent(out) :: value
        end function c_parameter

        integer(c_int) function c_parameter_integer(client, name, value) bind(c, name="mg_parameter_integer")
            import :: c_int, c_int64_t, c_ptr, c_char
            type(c_ptr), value :: client
            character(kind=c_char), intent(in) :: name(*)
            integer(c_int64_t), intent(out) :: value
        end function c_parameter_integer

        integer(c_int) function c_send_array(client, name, kind, count, values) bind(c, name="mg_send_array")
            import :: c_int, c_int64_t, c_ptr, c_char
            type(c_ptr), value :: client
            character(kind=c_char), intent(in) :: name(*)
            integer(c_int), value :: kind
            integer(c_int64_t), value :: count
            type(c_ptr), value :: values
        end function c_send_array

        integer(c_int) function c_fail(client, reason) bind(c, name="mg_fail")
            import :: c_int, c_ptr, c_char
            type(c_ptr), value :: client
            character(kind=c_char), intent(in) :: reason(*)
        end function c_fail

        integer(c_int) function c_close(client) bind(c, name="mg_close")
            import :: c_int, c_ptr
            type(c_ptr), value :: client
        end function c_close

        type(c_ptr) function c_error(client) bind(c, name="mg_error")
            import :: c_ptr
            type(c_ptr), value :: client
        end function c_error

        integer(c_size_t) function c_strlen(text) bind(c, name="strlen")
            import :: c_ptr, c_size_t
            type(c_ptr), value :: text
        end function c_strlen
    end interface

contains

    !> Connects a solver of one process.
    subroutine open_alone(client, error)
        type(mg_client), intent(out) :: client
        integer, intent(out) :: error
        error = int(c_open(client%handle))
    end subroutine open_alone

    !> Connects the ranks of a communicator, which solve each simulation together.
    subroutine open_comm(client, comm, error)
        type(mg_client), intent(out) :: client
        integer, intent(in) :: comm
        integer, intent(out) :: error
        error = int(c_open_fortran(client%handle, int(comm, c_int)))
    end subroutine open_comm

    !> Declares a field and this rank's block of it; `start` counts from 1 (the default), `extent` defaults to the rest.
    subroutine field64(client, name, shape, start, extent, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        integer(int64), intent(in) :: shape(:)
        integer(int64), intent(in), optional :: start(:), extent(:)
        integer, intent(out) :: error
        integer(c_int64_t) :: first(size(shape)), length(size(shape))
        first = 0
        if (present(start)) then
            if (size(start) == size(shape)) then
                first = start - 1
            else
                first = -1 ! outside the field, which the library reports
            end if
        end if
        length = shape - first
        if (present(extent)) then
            if (size(extent) == size(shape)) then
                length = extent
            else
                length = -1
            end if
        end if
        error = int(c_field(client%handle, c_string(name), FLOAT64, size(shape, kind=c_int), &
                            reversed(shape), reversed(first), reversed(length)))
    end subroutine field64

    subroutine field32(client, name, shape, start, extent, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        integer(int32), intent(in) :: shape(:)
        integer(int32), intent(in), optional :: start(:), extent(:)
        integer, intent(out) :: error
        integer(int64), allocatable :: first(:), length(:) ! an argument that is not allocated counts as not present
        if (present(start)) first = int(start, int64)
        if (present(extent)) length = int(extent, int64)
        call field64(client, name, int(shape, int64), first, length, error)
    end subroutine field32

    !> Completes the current simulation and waits for the next one: its number, or -1 if none is left.
    subroutine next64(client, simulation, error)
        type(mg_client), intent(in) :: client
        integer(int64), intent(out) :: simulation
        integer, intent(out) :: error
        error = int(c_next(client%handle, simulation))
    end subroutine next64

    subroutine next32(client, simulation, error)
        type(mg_client), intent(in) :: client
        integer(int32), intent(out) :: simulation
        integer, intent(out) :: error
        integer(int64) :: number
        call next64(client, number, error)
        simulation = int(number, int32)
    end subroutine next32

    !> Gives a parameter of the current simulation, in the study's unit.
    subroutine parameter_real(client, name, value, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real64), intent(out) :: value
        integer, intent(out) :: error
        value = 0
        error = int(c_parameter(client%handle, c_string(name), value))
    end subroutine parameter_real

    subroutine parameter64(client, name, value, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        integer(int64), intent(out) :: value
        integer, intent(out) :: error
        value = 0
        error = int(c_parameter_integer(client%handle, c_string(name), value))
    end subroutine parameter64

    subroutine parameter32(client, name, value, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        integer(int32), intent(out) :: value
        integer, intent(out) :: error
        integer(int64) :: number
        call parameter64(client, name, number, error)
        value = int(number, int32)
    end subroutine parameter32

    !> Gives up the current simulation.
    subroutine mg_fail(client, reason, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: reason
        integer, intent(out) :: error
        error = int(c_fail(client%handle, c_string(reason)))
    end subroutine mg_fail

    !> Ends the connection.
    subroutine mg_close(client, error)
        type(mg_client), intent(inout) :: client
        integer, intent(out) :: error
        error = int(c_close(client%handle))
        client%handle = c_null_ptr
    end subroutine mg_close

    !> The sentence of the last error.
    function mg_error(client) result(text)
        type(mg_client), intent(in) :: client
        character(:), allocatable :: text
        type(c_ptr) :: sentence
        character(kind=c_char), pointer :: characters(:)
        integer :: i
        sentence = c_error(client%handle)
        call c_f_pointer(sentence, characters, [c_strlen(sentence)])
        allocate (character(size(characters)) :: text)
        do i = 1, size(characters)
            text(i:i) = characters(i)
        end do
    end function mg_error

    ! One procedure for each type and rank; all call `send32` or `send64`.

    subroutine send32(client, name, values, count, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        integer(int64), intent(in) :: count
        real(real32), intent(in), target :: values(*)
        integer, intent(out) :: error
        error = int(c_send_array(client%handle, c_string(name), FLOAT32, count, c_loc(values)))
    end subroutine send32

    subroutine send64(client, name, values, count, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        integer(int64), intent(in) :: count
        real(real64), intent(in), target :: values(*)
        integer, intent(out) :: error
        error = int(c_send_array(client%handle, c_string(name), FLOAT64, count, c_loc(values)))
    end subroutine send64

    subroutine send32_1(client, name, values, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real32), intent(in) :: values(:)
        integer, intent(out) :: error
        call send32(client, name, values, size(values, kind=int64), error)
    end subroutine send32_1

    subroutine send32_2(client, name, values, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real32), intent(in) :: values(:, :)
        integer, intent(out) :: error
        call send32(client, name, values, size(values, kind=int64), error)
    end subroutine send32_2

    subroutine send32_3(client, name, values, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real32), intent(in) :: values(:, :, :)
        integer, intent(out) :: error
        call send32(client, name, values, size(values, kind=int64), error)
    end subroutine send32_3

    subroutine send32_4(client, name, values, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real32), intent(in) :: values(:, :, :, :)
        integer, intent(out) :: error
        call send32(client, name, values, size(values, kind=int64), error)
    end subroutine send32_4

    subroutine send64_1(client, name, values, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real64), intent(in) :: values(:)
        integer, intent(out) :: error
        call send64(client, name, values, size(values, kind=int64), error)
    end subroutine send64_1

    subroutine send64_2(client, name, values, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real64), intent(in) :: values(:, :)
        integer, intent(out) :: error
        call send64(client, name, values, size(values, kind=int64), error)
    end subroutine send64_2

    subroutine send64_3(client, name, values, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real64), intent(in) :: values(:, :, :)
        integer, intent(out) :: error
        call send64(client, name, values, size(values, kind=int64), error)
    end subroutine send64_3

    subroutine send64_4(client, name, values, error)
        type(mg_client), intent(in) :: client
        character(*), intent(in) :: name
        real(real64), intent(in) :: values(:, :, :, :)
        integer, intent(out) :: error
        call send64(client, name, values, size(values, kind=int64), error)
    end subroutine send64_4

    pure function c_string(text) result(characters)
        character(*), intent(in) :: text
        character(kind=c_char) :: characters(len_trim(text) + 1)
        integer :: i
        do i = 1, len_trim(text)
            characters(i) = text(i:i)
        end do
        characters(len_trim(text) + 1) = c_null_char
    end function c_string

    pure function reversed(numbers) result(backwards)
        integer(int64), intent(in) :: numbers(:)
        integer(c_int64_t) :: backwards(size(numbers))
        backwards = numbers(size(numbers):1:-1)
    end function reversed

end module melissa_gen
