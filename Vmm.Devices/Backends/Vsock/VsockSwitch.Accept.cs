using Vmm.Vhost.Native;

namespace Vmm.Devices.Backends.Vsock;

/// <content>Host programs that wait for connections of the guest's, where this process connects to nobody.</content>
internal sealed partial class VsockSwitch
{
    /// <summary>The most programs that wait for a connection of the guest's.</summary>
    public const int MaxAcceptors = 64;

    private readonly bool _connects;
    private readonly List<HostHandshake> _acceptors = [];   // whoever has said so first is first

    private void AwaitGuest(HostHandshake program)
    {
        if (_acceptors.Count >= MaxAcceptors)
        {
            Complain($"a program of the host's cannot wait for connections to port {program.Port}: {MaxAcceptors} wait already");
            Drop(program);
            return;
        }
        _handshakes.Remove(program.Id);
        _acceptors.Add(program);
        _epoll.Change(program.Socket, PollEvents.None, program.Id);     // for its end
        if (_dialed.Count > 0)
            DialAgain();
    }

    private void DropAcceptor(ulong id)
    {
        for (int i = 0; i < _acceptors.Count; i++)
        {
            if (_acceptors[i].Id != id)
                continue;
            HostHandshake program = _acceptors[i];
            _acceptors.RemoveAt(i);
            program.Dispose();
            Hear();
            return;
        }
    }

    // Gives the guest's connection to the program that has waited for it longest.
    private int TryHandOver(in VsockHeader request)
    {
        for (int i = 0; i < _acceptors.Count;)
        {
            HostHandshake program = _acceptors[i];
            if (program.Port != request.DestinationPort)
            {
                i++;
                continue;
            }
            _acceptors.RemoveAt(i);
            // A socket that has sent nothing yet has room for one line.
            if (program.Socket.TrySend(HostHandshake.Answer(request.SourcePort), []) < 0)
            {
                program.Dispose();      // it has left
                Hear();
                continue;
            }
            _epoll.Forget(program.Socket);
            Begin(program.Id, program.Socket, request);
            return 0;
        }
        return Errnos.Econnrefused;
    }
}
