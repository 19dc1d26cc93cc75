! The solver of probe.c in Fortran: the same modes, the same output. Indices run the other way: the study's a(4, 6) is
! a(6, 4) here.
program modes
    use, intrinsic :: iso_fortran_env, only: int64, real32, real64
    use, intrinsic :: ieee_arithmetic, only: ieee_positive_inf, ieee_quiet_nan, ieee_value
    use melissa_gen
    implicit none
    type(mg_client) :: client
    character(32) :: mode
    real(real64) :: p, q
    integer(int64) :: simulation
    integer :: error, closed, steps, step

    mode = "good"
    if (command_argument_count() > 0) call get_command_argument(1, mode)
    steps = 3
    if (mode == "short") steps = 2
    if (mode == "too-many") steps = 4
    call mg_open(client, error)
    if (error == MG_OK) call declare_fields()
    do while (error == MG_OK)
        call mg_next(client, simulation, error)
        if (error /= MG_OK .or. simulation < 0) exit
        call solve()
        if (mode == "nan" .and. error == MG_ERROR_SIMULATION) then
            print "(i0, 1x, a)", error, mg_error(client)
            error = MG_OK ! and on with the next one
        end if
        if (mode == "leave" .or. mode == "leave-early") exit
    end do
    print "(i0, 1x, a)", error, mg_error(client)
    call mg_close(client, closed)
    print "(a, i0)", "closed ", closed
    if (mode == "leave-early") stop
    if (error == 1) stop 1, quiet=.true.
    if (error == 2) stop 2, quiet=.true.
    if (error == 3) stop 3, quiet=.true.
    if (error == 4) stop 4, quiet=.true.

contains

    subroutine declare_fields()
        integer :: shape(2)
        shape = [6, 4]
        if (mode == "wrong-shape") shape(1) = 7
        if (mode == "unknown-field") then
            call mg_field(client, "aa", shape, error=error)
        else
            call mg_field(client, "a", shape, error=error)
        end if
        if (error == MG_OK .and. mode == "outside") &
            call mg_field(client, "a", shape, start=[1, 3], extent=shape, error=error)
        if (error /= MG_OK .or. mode == "undeclared") return
        if (mode(1:5) == "input") then
            call mg_field(client, "k", merge(65536, [3, 2], mode == "input-large"), error=error)
            if (error /= MG_OK) return
        end if
        if (mode == "no-part") then
            call mg_field(client, "b", [3], start=[4], extent=[0], error=error)
        else
            call mg_field(client, "b", [3], error=error)
        end if
    end subroutine declare_fields

    subroutine solve()
        integer(int64) :: long
        integer :: short
        call mg_parameter(client, "p", p, error)
        if (mode == "unknown-parameter") then
            call mg_parameter(client, "r", q, error)
        else if (error == MG_OK) then
            call mg_parameter(client, "q", q, error)
        end if
        if (error == MG_OK .and. mode == "integer") then
            call mg_parameter(client, "q", long, error)
            if (error == MG_OK) call mg_parameter(client, "q", short, error)
            if (error == MG_OK .and. short == long) print "(a, i0)", "q ", short
        end if
        do step = 0, steps - 1
            if (error /= MG_OK) return
            if (mode == "fail" .and. simulation == 0 .and. step == 1) then
                call mg_fail(client, "diverged", error)
                return
            end if
            if (mode(1:5) == "input" .and. mode /= "input-missing" .and. (step == 0 .or. mode == "input-late")) &
                call send_input()
            if (error /= MG_OK) return
            if (mode == "strided") then
                call send_strided()
            else
                call send_step()
            end if
            do while (mode == "stuck")
            end do
        end do
    end subroutine solve

    !> Sends the input k, once unless the mode says otherwise.
    subroutine send_input()
        real(real32) :: k(3, 2)
        integer :: i
        k = reshape([(10*real(simulation, real32) + real(i, real32), i=0, 5)], [3, 2])
        if (mode == "input-nan") k(2, 2) = ieee_value(1.0_real32, ieee_quiet_nan)
        if (mode == "input-count") then
            call mg_send(client, "k", reshape(k, [5]), error)
        else
            call mg_send(client, "k", k, error)
        end if
        if (error == MG_OK .and. mode == "input-twice") call mg_send(client, "k", k, error)
    end subroutine send_input

    !> Sends a from within an array with halo cells, and b backwards from every second value.
    subroutine send_strided()
        real(real64) :: halo(0:7, 0:5)
        real(real32) :: wide(6)
        integer :: i
        halo = ieee_value(1.0_real64, ieee_quiet_nan)
        wide = ieee_value(1.0_real32, ieee_quiet_nan)
        halo(1:6, 1:4) = reshape([(1000.0_real64*simulation + 100.0_real64*step + i, i=0, 23)], [6, 4])
        wide(2:6:2) = real(p + step, real32)
        call mg_send(client, "a", halo(1:6, 1:4), error)
        if (error == MG_OK) call mg_send(client, "b", wide(6:2:-2), error)
    end subroutine send_strided

    subroutine send_step()
        real(real64) :: a(6, 4)
        real(real32) :: b(3), nothing(0)
        integer :: i
        a = reshape([(1000.0_real64*simulation + 100.0_real64*step + i, i=0, 23)], [6, 4])
        b = real(p + step, real32)
        if (mode == "nan" .and. simulation == 1 .and. step == 2) then
            a(4, 1) = ieee_value(1.0_real64, ieee_quiet_nan)
            a(5, 1) = ieee_value(1.0_real64, ieee_positive_inf)
        end if
        if (mode == "overflow") a(1, 1) = 1e300_real64
        if (mode == "unknown-send") then
            call mg_send(client, "c", a, error)
            return
        end if
        if (mode == "wrong-count") then
            call mg_send(client, "a", reshape(a, [23]), error)
        else
            call mg_send(client, "a", a, error)
        end if
        a = 0
        if (error == MG_OK .and. mode == "twice") call mg_send(client, "a", a, error)
        if (error == MG_OK .and. mode == "no-part") then
            call mg_send(client, "b", nothing, error)
        else if (error == MG_OK .and. .not. (mode == "half-step" .and. step == 2)) then
            call mg_send(client, "b", b, error)
        end if
        b = 0
    end subroutine send_step
end program modes
