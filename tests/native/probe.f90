! Two ranks in Fortran, with mpif.h: each has half of a real32 field u(5, 4, 6) (the study's shape is [6, 4, 5]), sent as
! a section that is not contiguous, and a whole real64 field v(2) is split into one value each. Two time steps.
program probe
    use, intrinsic :: iso_fortran_env, only: int64, real32, real64
    use melissa_gen
    implicit none
    include 'mpif.h'
    type(mg_client) :: client
    real(real32) :: u(10, 4, 3)
    real(real64) :: p, v(1)
    integer(int64) :: simulation
    integer :: error, rank, i, j, k, step

    call MPI_Init(error)
    call MPI_Comm_rank(MPI_COMM_WORLD, rank, error)
    call mg_open(client, MPI_COMM_WORLD, error)
    call check()
    call mg_field(client, "u", shape=[5, 4, 6], start=[1, 1, 3*rank + 1], extent=[5, 4, 3], error=error)
    call check()
    call mg_field(client, "v", shape=[2_int64], start=[rank + 1_int64], extent=[1_int64], error=error)
    call check()
    do
        call mg_next(client, simulation, error)
        call check()
        if (simulation < 0) exit
        call mg_parameter(client, "p", p, error)
        call check()
        do step = 1, 2
            do k = 1, 3
                do j = 1, 4
                    do i = 1, 10
                        u(i, j, k) = real(1000*step + 100*(3*rank + k) + 10*j, real32) + 0.5*(i + 1)
                    end do
                end do
            end do
            call mg_send(client, "u", u(1:10:2, :, :), error)
            call check()
            v = p + rank
            call mg_send(client, "v", v, error)
            call check()
        end do
    end do
    call mg_close(client, error)
    call MPI_Finalize(error)

contains

    subroutine check()
        integer :: ignored
        if (error == MG_OK) return
        print "(i0, 1x, a)", error, mg_error(client)
        call mg_close(client, error)
        call MPI_Abort(MPI_COMM_WORLD, 1, ignored)
    end subroutine check
end program probe
